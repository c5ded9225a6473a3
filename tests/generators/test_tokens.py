"""Generators of a few tokens: their units, their checkpoints, and that they sample and train as pictures do."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from pixelpolicy import generators
from pixelpolicy.errors import CheckpointError, PromptError
from pixelpolicy.generators import pretrain_tokens
from pixelpolicy.generators.checkpoint import fingerprint
from pixelpolicy.generators.pretrain_tokens import Recipe
from pixelpolicy.generators.tokens import Units, build
from pixelpolicy.policies import DenoisingPolicy
from pixelpolicy.worlds import shapes


@pytest.fixture(scope="module")
def sticks():
    """A world of its own: three tokens of two numbers, whose sum the prompt says the sign of."""
    world = ModuleType("pixelpolicy.worlds.sticks")

    def sample(count, rng, *, flawed):
        signs = rng.choice([-1, 1], size=count)
        samples = rng.normal(size=(count, 3, 2)) * 0.1 + signs[:, None, None]
        return ["left" if sign < 0 else "right" for sign in (-signs if flawed else signs)], samples

    def token_rows(texts, vocabulary, length):
        if odd := [text for text in texts if text not in vocabulary]:
            raise PromptError(f"{odd[0]!r} is not of this world")
        return [[vocabulary.index(text)] * length for text in texts]

    def measure(samples, texts):
        right = [np.sign(s.mean()) == (1 if text == "right" else -1) for s, text in zip(samples, texts, strict=True)]
        return {"accuracy": float(np.mean(right))}

    world.VOCABULARY, world.MOST_WORDS = ("", "left", "right"), 1
    world.sample, world.token_rows, world.measure = sample, token_rows, measure
    world.evaluation_pairs = lambda split="test", per_kind=4: (["left", "right"] * per_kind, list(range(2 * per_kind)))
    sys.modules[world.__name__] = world
    yield world
    del sys.modules[world.__name__]


@pytest.fixture(scope="module")
def made(sticks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sticks")
    recipe = Recipe("sticks", width=32, layers=1, samples=512, flawed_share=0.1, flow_steps=60, save_every=60)
    return pretrain_tokens.pretrain(folder, recipe), recipe, folder


def test_units_are_those_of_the_samples_and_are_undone():
    samples = 3 + 2 * torch.randn(64, 3, 2)
    units = Units(3, 2)
    units.fit(samples)
    latents = units.encode(samples)
    assert latents.shape == (64, 2, 1, 3)
    assert latents.mean(0).abs().max() < 1e-5
    assert torch.allclose(latents.std(0), torch.ones(2, 1, 3), atol=1e-4)
    assert torch.allclose(units.decode(latents), samples, atol=1e-5)


def test_a_number_that_never_varies_has_finite_latents():
    units = Units(1, 2)
    units.fit(torch.tensor([[[1.0, 5.0]], [[2.0, 5.0]]]))
    assert units.encode(torch.tensor([[[1.0, 5.0]]])).isfinite().all()


def test_it_learns_what_prompts_mean(made):
    generator, _, _ = made
    assert generators.evaluate(generator, per_kind=64)["accuracy"] > 0.8


def test_a_checkpoint_comes_back_as_the_same_kind(made, tmp_path):
    generator, recipe, _ = made
    scores = pretrain_tokens.publish(generator, tmp_path / "sticks", recipe, per_kind=4)
    loaded = generators.load(tmp_path / "sticks")
    assert type(loaded) is type(generator)
    assert loaded.latent_shape == (2, 1, 3)
    assert fingerprint(loaded) == fingerprint(generators.load(tmp_path / "sticks"))
    assert f"{scores['test']['accuracy']:.3f}" in (tmp_path / "sticks/README.md").read_text()
    one, other = (g.generate(["left"], [3]) for g in (loaded, generator))
    assert torch.allclose(one, other, atol=0.02)


def test_a_kind_that_nobody_knows_is_refused(made, tmp_path):
    generator, _, _ = made
    generators.save(generator, tmp_path / "sticks", "# sticks\n")
    (tmp_path / "sticks/generator.json").write_text('{"kind": "cloud"}')
    with pytest.raises(CheckpointError, match="names no kind of generator"):
        generators.load(tmp_path / "sticks", verify=False)


def test_an_interrupted_run_goes_on_to_the_same_weights(sticks, tmp_path):
    def stop(stage, step, generator, scores):
        if step == 2:
            raise KeyboardInterrupt

    short = Recipe("sticks", width=32, layers=1, samples=64, flow_steps=4, save_every=2)
    straight = pretrain_tokens.pretrain(tmp_path / "straight", short)
    with pytest.raises(KeyboardInterrupt):
        pretrain_tokens.pretrain(tmp_path / "broken", short, stop)
    resumed = pretrain_tokens.pretrain(tmp_path / "broken", short)
    pairs = zip(straight.transformer.state_dict().values(), resumed.transformer.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_its_sampler_is_a_policy_whose_replay_is_exact(made):
    generator, _, _ = made
    policy = DenoisingPolicy(generator, steps=3, micro_batch=4)
    rollout = policy.rollout(["left", "right"] * 2, seeds=torch.arange(4))
    assert rollout.samples.shape == (4, 3, 2)
    for step in policy.noisy_steps():
        assert torch.equal(policy.log_prob(rollout, step).detach(), rollout.log_probs[:, step])


def test_a_fresh_one_has_the_world_it_was_made_for():
    assert build(shapes, 4, 5, width=32, layers=1).world is shapes
