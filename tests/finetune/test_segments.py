"""DPO by segments: its labels and loss by hand, the pairs, and that a label moves its own segment."""

import math

import pytest
import torch

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune import Loop, LoopConfig
from pixelpolicy.finetune.segments import (
    SegmentDPO,
    SegmentPairs,
    corrupted_copies,
    segment_dpo_loss,
    segment_labels,
    segment_means,
)
from pixelpolicy.generators.video import CODE, build
from pixelpolicy.policies import DenoisingPolicy

PROMPTS = ["a red disc thrown left", "a blue square thrown up"]


@pytest.fixture
def policy() -> DenoisingPolicy:
    torch.manual_seed(0)
    return DenoisingPolicy(build(width=32, layers=1), steps=4, stochastic_steps=[])


def test_labels_by_hand():
    a = torch.tensor([[1.0, 1, 0, 0], [0.5, 0.5, 0.5, 0.6]])
    b = torch.tensor([[0.0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    assert segment_labels(a, b, 2).tolist() == [[1, -1], [0, 1]]
    assert segment_labels(a, b, 2, margin=0.1).tolist() == [[1, -1], [0, 0]]
    assert segment_labels(a, b, 1, margin=0.01).tolist() == [[0], [1]]
    with pytest.raises(TrainingError, match="equal segments"):
        segment_means(a, 3)


def test_the_loss_by_hand_and_where_its_gradient_goes():
    errors = [torch.zeros(1, 4, requires_grad=True) for _ in range(4)]
    labels = torch.tensor([[1.0, 0.0]])
    loss = segment_dpo_loss(*errors, labels, beta=2.0)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert errors[0].grad.tolist() == [[0.25, 0.25, 0, 0]] and errors[1].grad.tolist() == [[-0.25, -0.25, 0, 0]]
    assert errors[2].grad is None and errors[3].grad is None
    assert segment_dpo_loss(*[e.detach() for e in errors], torch.zeros(1, 2)).item() == 0


def test_copies_noised_a_little_are_near_and_copies_differ(policy):
    clean = torch.randn(2, CODE, 8, 1, 1, generator=torch.Generator().manual_seed(1))
    first, second = corrupted_copies(policy, PROMPTS, clean, start=3)
    assert first.shape == clean.shape and not torch.equal(first, second)
    far = corrupted_copies(policy, PROMPTS, clean, start=0)[0]
    assert (first - clean).square().mean() < (far - clean).square().mean()


def test_training_tells_the_labelled_segments_apart(policy):
    first, second = torch.randn(2, 2, CODE, 8, 1, 1, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([[1.0, -1, 0, 0], [1, 0, -1, 0]])
    student = DenoisingPolicy(policy.generator.student(), steps=4, stochastic_steps=[])
    algorithm = SegmentDPO(student, SegmentPairs(PROMPTS, first, second, labels), batch=2, steps=2)
    history = Loop(algorithm, LoopConfig(8, learning_rate=2e-3, progress=False)).run()
    assert history[0]["loss"] <= math.log(2) + 0.05 and history[-1]["loss"] < history[0]["loss"]


def test_pairs_without_any_label_are_refused(policy):
    latents = torch.zeros(2, CODE, 8, 1, 1)
    with pytest.raises(TrainingError, match="no segment"):
        SegmentDPO(policy, SegmentPairs(PROMPTS, latents, latents, torch.zeros(2, 4)))
