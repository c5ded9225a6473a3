"""A writer of layouts and pictures: its grammar, its drawing of tokens, its checkpoint, its recipe."""

import numpy as np
import pytest
import torch

from pixelpolicy import generators
from pixelpolicy.errors import PromptError
from pixelpolicy.generators import pretrain_picture_tokens as recipes
from pixelpolicy.generators.checkpoint import fingerprint
from pixelpolicy.generators.grammar import Grammar
from pixelpolicy.generators.picture_tokens import build
from pixelpolicy.generators.sampling import choose, nucleus, write
from pixelpolicy.worlds import layouts, shapes

INF = float("inf")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    made = build(width=32, layers=1, codes=16)
    for module in made.modules.values():
        module.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def written(generator):
    texts, seeds = shapes.evaluation_pairs("test", 4)
    return texts, write(generator.begin(texts), seeds)


# Grammar


def test_what_is_written_keeps_to_the_grammar(generator, written):
    _, tokens = written
    allowed = generator.grammar.allowed(tokens)
    assert allowed.gather(-1, tokens[..., None]).all()
    for row in tokens.tolist():
        words, codes = row[: layouts.LENGTH], row[layouts.LENGTH :]
        assert layouts.written(layouts.read(words)) == words
        assert 1 <= len(layouts.read(words)) <= layouts.SLOTS
        assert min(codes) >= len(layouts.WORDS)


def test_the_two_views_of_the_grammar_agree(written):
    grammar = Grammar(codes=16, picture=64)
    _, tokens = written
    whole = grammar.allowed(tokens)
    for step in range(grammar.steps):
        assert torch.equal(grammar.allowed_next(tokens[:, :step]), whole[:, step])


def test_behind_an_empty_slot_nothing_is_chosen():
    grammar = Grammar(codes=4, picture=2)
    words = layouts.written((layouts.Planned("red", "circle", 0, 0),))
    allowed = grammar.allowed(torch.tensor([[*words, grammar.first_code, grammar.first_code + 1]]))[0]
    assert allowed.sum(1).tolist() == [4, 3, 8, 8, 5, *[1] * 11, 4, 4]


# Drawing tokens


def test_nucleus_keeps_the_fewest_that_reach_the_share():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]).log()
    kept = {p: (~nucleus(logits, top_p=p).isneginf()).sum(1).tolist() for p in (0.4, 0.6, 0.9, 0.97, 1.0)}
    assert kept == {0.4: [1, 1], 0.6: [2, 2], 0.9: [3, 3], 0.97: [4, 4], 1.0: [4, 4]}
    assert nucleus(logits, top_p=0.6)[1].isneginf().tolist() == [True, True, False, False]


def test_temperature_comes_before_the_nucleus():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    assert torch.allclose(nucleus(logits, 0.5), 2 * logits)
    assert (~nucleus(logits, 0.25, 0.8).isneginf()).sum() == 1  # 0.5^4 is 86% of the sum of fourth powers
    with pytest.raises(ValueError, match="temperature 0 "):
        nucleus(logits, 0)


def test_choices_come_as_often_as_they_are_likely():
    logits = torch.tensor([0.5, 0.0, 0.3, 0.2]).log().expand(20_000, -1)
    drawn = choose(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    shares = drawn.bincount(minlength=4) / 20_000
    assert torch.allclose(shares, torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=0.015)


def test_what_cannot_be_is_not_chosen_at_either_end():
    logits = torch.tensor([[-INF, 0.0, 0.0, -INF]]).expand(2, -1)
    assert choose(logits, torch.tensor([0.0, 1 - 2**-24])).tolist() == [1, 2]


def test_a_sample_does_not_depend_on_its_company(generator, written):
    texts, tokens = written
    _, seeds = shapes.evaluation_pairs("test", 4)
    assert torch.equal(write(generator.begin(texts[3:5]), seeds[3:5]), tokens[3:5])


def test_written_token_by_token_and_read_at_once_are_the_same_model(generator, written):
    texts, tokens = written
    draft, whole = generator.begin(texts), generator.logits(texts, tokens)
    for step in range(generator.steps):
        assert torch.allclose(draft.logits, whole[:, step], atol=1e-4)
        draft.append(tokens[:, step])


# Pictures


def test_a_picture_is_that_of_its_codes(generator):
    _, pictures = recipes.sample_scenes(4, np.random.default_rng(0))
    rebuilt = recipes.rebuild(generator, torch.from_numpy(pictures))
    with torch.no_grad():
        vq = generator.vq
        expected = vq.decode(vq.encode(torch.from_numpy(pictures)).latents).sample.clamp(-1, 1)
    assert torch.allclose(rebuilt, expected, atol=1e-5)


def test_drawings_hold_layout_and_picture(generator, written):
    texts, tokens = written
    drawings = generator.drawings(tokens)
    _, seeds = shapes.evaluation_pairs("test", 4)
    assert torch.allclose(torch.stack([d.picture for d in drawings]), generator.generate(texts, seeds))
    assert all(layouts.written(d.layout) == t for d, t in zip(drawings, tokens[:, :16].tolist(), strict=True))


def test_a_prompt_of_another_world_is_refused(generator):
    with pytest.raises(PromptError):
        generator.generate(["a cat"], [0])


# Checkpoints and the recipe


def test_it_is_saved_and_comes_back(generator, tmp_path):
    generators.save(generator, tmp_path / "tokens", "# tokens\n")
    loaded = generators.load(tmp_path / "tokens")
    assert type(loaded) is type(generator)
    assert loaded.steps == generator.steps
    assert fingerprint(loaded) == fingerprint(generators.load(tmp_path / "tokens"))
    assert not any(p.requires_grad for m in loaded.modules.values() for p in m.parameters())


def test_a_student_is_another_transformer(generator):
    student = generator.student()
    assert student.transformer is not generator.transformer
    assert student.vq is generator.vq
    assert all(p.requires_grad for p in student.transformer.parameters())


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_flawed_data_are_wrong_in_the_point_they_say(kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        text = str(rng.choice(shapes.prompts(kind)))
        assert layouts.agreement(layouts.layout_of(recipes.misdescribed(text, rng)), text) < 1
        things = shapes.scene(text, rng)
        spoilt = recipes.misdrawn(things, rng)
        assert len(things) - len(spoilt) + sum(a != b for a, b in zip(things, spoilt, strict=False)) >= 1


def test_the_recipe_runs_and_goes_on_where_it_stopped(tmp_path):
    def stop(stage, step, generator, scores):
        if (stage, step) == ("writer", 1):
            raise KeyboardInterrupt

    recipe = recipes.recipe_of("shapes-tokens", 0, small=True)
    straight = recipes.pretrain(tmp_path / "straight", recipe)
    with pytest.raises(KeyboardInterrupt):
        recipes.pretrain(tmp_path / "broken", recipe, stop)
    resumed = recipes.pretrain(tmp_path / "broken", recipe)
    pairs = zip(straight.transformer.state_dict().values(), resumed.transformer.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    scores = recipes.publish(resumed, tmp_path / "checkpoint", recipe, per_kind=2)
    assert set(scores) == {"test", "held-out", "cooler"}
    assert "remakes it from its seed" in (tmp_path / "checkpoint/README.md").read_text()
