"""Evaluation: a generator with a world of its own is judged there, one without is asked for shapes."""

from types import SimpleNamespace

import torch

from pixelpolicy.generators import best_of, evaluate
from pixelpolicy.worlds import shapes


class Empty:
    """A real model, as far as evaluation knows: it draws black pictures of any prompt."""

    def generate(self, prompts, seeds, **settings):
        return -torch.ones(len(prompts), 3, 32, 32)


def test_a_model_without_a_world_is_asked_for_shapes():
    scores = evaluate(Empty(), per_kind=1)
    assert scores["accuracy"] == 0 and {f"accuracy_{kind}" for kind in shapes.KINDS} <= scores.keys()
    assert best_of(Empty(), (1, 2), per_kind=1) == {1: 0.0, 2: 0.0}


def test_a_world_of_its_own_is_asked():
    asked = SimpleNamespace(
        evaluation_pairs=lambda split, per_kind: ([split] * per_kind, list(range(per_kind))),
        measure=lambda samples, texts: {"texts": texts, "count": len(samples)},
    )
    generator = Empty()
    generator.world = asked
    assert evaluate(generator, "validation", per_kind=3) == {"texts": ["validation"] * 3, "count": 3}
