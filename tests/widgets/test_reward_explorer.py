"""The reward explorer in Python: its traits, its errors in words, what its kernel answers, and its record."""

import json
import threading
import time
from base64 import b64decode

import numpy as np
import pytest
import torch
from explorers import check_json

from pixelpolicy.errors import FigureError
from pixelpolicy.generators.checkpoint import difference, save_weights
from pixelpolicy.rewards import redness, shapes_dense, shapes_strict
from pixelpolicy.rl import Reward
from pixelpolicy.widgets import RewardExplorer
from pixelpolicy.widgets.reward_explorer import CHUNK, SAMPLES, draw, kl, pairs
from pixelpolicy.widgets.sprites import as_pixels

PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red circle"]


@pytest.fixture(scope="module")
def run(generator, tmp_path_factory):
    """A fine-tuned model: the twin with noise on its weights."""
    torch.manual_seed(1)
    state = generator.transformer.state_dict()
    tuned = {name: value + 0.05 * torch.randn_like(value) for name, value in state.items()}
    path = tmp_path_factory.mktemp("run") / "tuned.safetensors"
    save_weights(difference(tuned, state), path, base=generator)
    return path


class Explorer(RewardExplorer):
    """One whose messages are kept rather than sent."""

    def __init__(self, **more):
        self.sent, self.news = [], threading.Event()
        super().__init__(alt="A twin under sliders.", **more)

    def send(self, content, buffers=None):
        self.sent.append(json.loads(json.dumps(content, allow_nan=False)))
        if content["kind"] in ("done", "error"):
            self.news.set()

    def ask(self, number=1, **settings):
        names = ("alpha", "guidance", "steps", "noise", "seed_set", "run", "chosen")
        wanted = {name: getattr(self, name) for name in names} | settings
        self._heard(self, {"kind": "draw", "number": number, "settings": wanted}, [])

    def answer(self, number=1, **settings):
        self.sent.clear()
        self.news.clear()
        self.ask(number, **settings)
        assert self.news.wait(60)
        return self.sent[-1], [said for said in self.sent if said["kind"] == "pictures"]


@pytest.fixture
def explorer(generator, run):
    rewards = [shapes_dense(), redness()]
    return Explorer(generator=generator, runs={"twin": run}, prompts=PROMPTS, rewards=rewards)


def test_pictures_share_seeds_by_rows():
    texts, seeds = pairs(PROMPTS)
    assert texts[:4] == [*PROMPTS, PROMPTS[0]] and seeds[:7] == [0, 0, 0, 1, 1, 1, 2] and len(seeds) == SAMPLES
    assert pairs(PROMPTS[:1], 3) == ([PROMPTS[0]] * 16, list(range(32, 48)))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_kernel_draws_what_the_library_draws(explorer, generator, run, noise):
    from pixelpolicy.generators.checkpoint import apply_difference

    how = {"guidance": 2.0, "steps": 3, "noise": noise}
    done, parts = explorer.answer(alpha=0.5, **how)
    tuned = apply_difference(generator.reference(), run, 0.5)
    texts, seeds = pairs(PROMPTS)
    chunks = [draw(tuned, texts[k : k + CHUNK], seeds[k : k + CHUNK], **how).samples for k in range(0, SAMPLES, CHUNK)]
    pictures = torch.cat(chunks)
    assert [part["first"] for part in parts] == [0, 4, 8, 12]
    packed = [b64decode(picture) for part in parts for picture in part["pictures"]]
    assert packed == [picture.tobytes() for picture in as_pixels(pictures)]
    for reward in (shapes_dense(), redness(), shapes_strict()):
        told = [value for part in parts for value in part["values"][reward.name]]
        assert np.allclose(told, reward(pictures, texts), atol=1e-6)
    assert done["kind"] == "done" and done["seconds"] > 0 and done["diversity"] is None
    if noise:
        assert done["kl"] == pytest.approx(kl(tuned, generator, texts, seeds, **how).mean().item(), rel=1e-3)
        assert done["kl"] > 0
    else:
        assert done["kl"] is None


def test_at_zero_it_is_the_base(explorer, generator):
    done, parts = explorer.answer(alpha=0.0, noise=0.3, steps=2)
    texts, seeds = pairs(PROMPTS)
    base = draw(generator, texts[:CHUNK], seeds[:CHUNK], guidance=1, steps=2, noise=0.3).samples
    assert [b64decode(one) for one in parts[0]["pictures"]] == [one.tobytes() for one in as_pixels(base)]
    assert done["kl"] == pytest.approx(0, abs=1e-9)


def test_a_new_wish_ends_the_old_and_none_is_waited_for(explorer):
    started = time.monotonic()
    for number in range(1, 6):
        explorer.ask(number, steps=16)
    assert time.monotonic() - started < 1, "asking does not wait for the drawing"
    assert explorer.news.wait(60) and explorer.sent[-1]["number"] == 5
    assert [said["number"] for said in explorer.sent if said["kind"] == "done"] == [5]
    explorer.sent.clear()
    explorer.ask(6, steps=16)
    explorer._heard(explorer, {"kind": "stop", "number": 7}, [])
    with explorer._turn:
        assert not [said for said in explorer.sent if said["kind"] == "done"]


def test_errors_reach_the_reader_in_words(explorer, generator, run):
    assert "slider goes from" in explorer.answer(alpha=9.0)[0]["words"]
    assert "older cell" in explorer.answer(chosen=["a pink circle"])[0]["words"]
    assert "TypeError" in explorer.answer(steps=None)[0]["words"]
    broken = Reward("broken", lambda samples, prompts: 1 / 0)
    other = Explorer(generator=generator, runs={"twin": run}, prompts=PROMPTS, rewards=[broken])
    assert "reward 'broken' raised ZeroDivisionError" in other.answer()[0]["words"]
    gone = Explorer(generator=generator, runs={"twin": run.with_name("gone")}, prompts=PROMPTS)
    words = gone.answer()[0]["words"]
    assert "gone" in words and "is missing" in words
    explorer._heard(explorer, "not a message", [])


def test_what_does_not_fit_is_refused(generator, run, tmp_path):
    good = {"alt": "Twins.", "generator": generator, "runs": {"twin": run}}
    wrong = [
        ({"alt": " "}, "alternative text"),
        ({"runs": {}}, "one fine-tuned model or more"),
        ({"runs": {"base": run}}, "none of them 'base'"),
        ({"prompts": "a red circle"}, "different ones to choose from"),
        ({"prompts": ["a red circle"] * 2}, "different ones"),
        ({"rewards": []}, "one or more"),
        ({"rewards": [redness(), redness()]}, "a name of its own"),
        ({"weights": {"beauty": 1.0}}, "no reward 'beauty'"),
        ({"weights": {"redness": 9.0}}, "its slider goes from"),
    ]
    for more, words in wrong:
        with pytest.raises(FigureError, match=words):
            RewardExplorer(**good | more)
    widget = RewardExplorer(**good)
    for name, value in (("alpha", 2.0), ("run", "x"), ("chosen", []), ("chosen", ["?"]), ("steps", 1)):
        with pytest.raises(FigureError):
            setattr(widget, name, value)
    check_json(widget)
    check_alone_but_for_the_engine(widget)
    (tmp_path / "states.json").write_text("[]")
    with pytest.raises(FigureError, match="no record of an explorer.*explorer_states.py"):
        RewardExplorer.from_states(tmp_path / "states.json", alt="Twins.")


def check_alone_but_for_the_engine(widget):
    """It fetches what lies beside the engine, and nothing from elsewhere."""
    code = str(widget._esm)
    assert code.count("export default") == 1 and code.count("fetch(") == 1
    assert 'fetch(new URL("states.json", folder))' in code
    assert not any(word in code for word in ("import ", "XMLHttpRequest", "https:"))
    assert not any(word in str(widget._css) for word in ("@import", "url("))


@pytest.fixture(scope="module")
def record(root):
    return root / "benchmarks" / "explorer" / "states.json"


def unpacked(states, run, place, alpha):
    """Values [rewards, prompts, seeds] of the record, decoded here by numpy."""
    blob = states["points"][run][place]["values"][states["alphas"].index(alpha)]
    levels = np.frombuffer(b64decode(blob), "<u2").reshape(len(states["rewards"]), len(states["prompts"]), -1)
    low, high = np.array([states["scales"][name] for name in states["rewards"]]).T[:, :, None, None]
    return low + levels / 65535 * (high - low)


def test_the_record_is_what_the_library_gives(record):
    """Two pictures of each prompt, at a place far from all ends, drawn anew."""
    from pixelpolicy.generators import load
    from pixelpolicy.generators.checkpoint import apply_difference
    from pixelpolicy.widgets.reward_explorer import course_rewards

    states = json.loads(record.read_text())
    rewards = {reward.name: reward for reward in [*course_rewards(), shapes_strict()]}
    assert list(rewards) == states["rewards"] and record.stat().st_size < 1_000_000
    base = load("shapes")
    texts = [prompt for prompt in states["prompts"] for _ in range(2)]
    place = next(i for i, at in enumerate(states["points"]["GRPO"]) if (at["guidance"], at["steps"]) == (2, 4))
    setting = {name: states["points"]["GRPO"][place][name] for name in ("guidance", "steps", "noise")}
    tuned = apply_difference(base.reference(), record.parents[1] / states["runs"]["GRPO"], 0.75)
    pictures = draw(tuned, texts, [0, 1] * len(states["prompts"]), **setting).samples
    found = unpacked(states, "GRPO", place, 0.75)
    for name, values in zip(states["rewards"], found, strict=True):
        low, high = states["scales"][name]
        expected = rewards[name](pictures, texts).numpy()
        assert np.abs(values[:, :2].ravel() - expected).max() <= 0.01 * (high - low), name


def test_the_explorer_of_the_record_needs_no_more_words(record):
    widget = RewardExplorer.from_states(record, alt="The explorer.")
    assert widget.run == "GRPO" and all(path.exists() for path in widget.files.values())
    assert widget.weights[widget.rewards[0]] == 1 and sum(widget.weights.values()) == 1
