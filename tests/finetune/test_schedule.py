"""Learning a schedule: closed forms of its pieces, a toy generator whose best schedule is known, the real base."""

from dataclasses import dataclass

import pytest
import torch

from pixelpolicy.errors import RolloutError
from pixelpolicy.finetune import Loop, LoopConfig, Schedule, ScheduleConfig, ScheduleSearch
from pixelpolicy.finetune.schedule import (
    antithetic,
    generate,
    numbers_of,
    pair_advantages,
    schedule_of,
    score_of,
    uniform,
)
from pixelpolicy.generators import load
from pixelpolicy.rl import Reward
from pixelpolicy.worlds import shapes


@dataclass
class Toy:
    """A flow of one number: its velocity is 1 for the prompt and 0 without, so that a sample tells the guidance."""

    transformer: torch.nn.Module = None
    latent_shape: tuple = (1,)
    device: torch.device = torch.device("cpu")
    calls: int = 0

    def encode(self, prompts):
        return (torch.tensor([[float(bool(prompt))] for prompt in prompts]),)

    def velocity(self, latents, sigma, told):
        self.calls += len(latents)
        return told * 1.0

    def decode(self, latents):
        return latents

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)


class TestPieces:
    @pytest.mark.parametrize("numbers", [torch.zeros(8), torch.tensor([3.0, -1, 0, 2, 0.5, -0.5, 1, 0]), torch.ones(2)])
    def test_a_schedule_falls_all_the_way_and_its_weights_are_positive(self, numbers):
        for span in ((1.0, 0.0), (0.98, 0.02)):
            sigmas, guidance = schedule_of(numbers, span)
            assert sigmas[0] == pytest.approx(span[0]) and sigmas[-1] == pytest.approx(span[1], abs=1e-7)
            assert (sigmas[1:] < sigmas[:-1]).all() and (guidance > 0).all()
            assert len(sigmas) == len(guidance) + 1 == len(numbers) // 2 + 1

    def test_numbers_come_back(self):
        schedule = Schedule(torch.tensor([1.0, 0.9, 0.4, 0.0]), torch.tensor([1.0, 3.0, 0.5]))
        for got, want in zip(schedule_of(numbers_of(schedule)), schedule, strict=True):
            assert torch.allclose(got, want, atol=1e-6)

    def test_draws_are_mirror_images(self):
        mean = torch.tensor([1.0, -2.0, 0.5])
        drawn = antithetic(mean, 0.1, 2000, torch.Generator().manual_seed(0))
        assert torch.allclose(drawn[:2000] + drawn[2000:], 2 * mean.expand(2000, 3), atol=1e-6)
        assert drawn.std(0) == pytest.approx(torch.full((3,), 0.1).numpy(), rel=0.1)
        assert torch.allclose(pair_advantages(torch.tensor([3.0, 1.0, 2.0, 5.0])), torch.tensor([0.5, -2, -0.5, 2]))

    def test_diversity_counts_up_to_the_usual(self):
        given = torch.tensor([0.1, 0.2, 0.5, float("nan")])
        assert torch.allclose(score_of(torch.ones(4), given, 0.2, 0.3), torch.tensor([1.15, 1.3, 1.3, 1.0]))


class TestGenerate:
    def test_a_uniform_schedule_is_the_generators_own_sampler(self):
        base, texts, seeds = load("shapes"), list(shapes.prompts("two")[:3]), [1, 2, 3]
        for weight in (1.0, 2.0):
            mine = generate(base, uniform(base, 3, weight), texts, torch.tensor(seeds), micro_batch=2)
            assert torch.allclose(mine, base.generate(texts, seeds, steps=3, guidance_scale=weight), atol=1e-4)

    def test_each_step_has_its_weight(self):
        toy = Toy()
        schedule = Schedule(torch.tensor([1.0, 0.7, 0.0]), torch.tensor([2.0, 1.0]))
        got = generate(toy, schedule, ["x"], torch.tensor([5]))
        noise = torch.randn(1, generator=torch.Generator().manual_seed(5))
        assert torch.allclose(got[0], noise - 0.3 * 2 - 0.7 * 1, atol=1e-6)
        assert toy.calls == 3  # without guidance the second step costs one pass


def search(toy, **settings):
    """The reward wants samples that end 3 below their noise: a mean guidance of 3."""
    config = ScheduleConfig(**{"prompts_per_iteration": 2, "group_size": 2, "diversity_weight": 0.0} | settings)
    reward = Reward("near", lambda samples, prompts: -(samples[:, 0] + 3).abs())
    return ScheduleSearch(
        toy, reward, lambda count, rng: ["x"] * count, lambda samples, prompts: 1.0, 1.0, uniform(toy, 2), config
    )


class TestLearning:
    def test_it_finds_the_guidance_that_the_reward_wants(self):
        algorithm = search(Toy())
        loop = Loop(algorithm, LoopConfig(60, 0.05, progress=False, ema_decay=0.5))
        before = loop.iterate()["reward"]
        loop.run()
        schedule = algorithm.schedule()
        reached = (schedule.guidance * -schedule.sigmas.diff()).sum().item()
        assert before < loop.history[-1]["reward"] and abs(reached - 3) < 0.5

    def test_an_iteration_repeats_itself(self):
        one, two = (search(Toy()).collect(3) for _ in range(2))
        assert torch.equal(one[0][0], two[0][0]) and one[1] == two[1]

    def test_shared_noise_leaves_no_difference_between_equal_schedules(self):
        algorithm = search(Toy())
        algorithm.draw = lambda mean, std, pairs, stream: mean.expand(2 * pairs, -1).clone()
        assert algorithm.collect(0)[1]["spread"] == 0

    def test_the_generator_is_not_touched(self):
        base = load("shapes")
        weights = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
        algorithm = ScheduleSearch(
            base, Reward("bright", lambda samples, _: samples.mean((1, 2, 3))), shapes.draw_prompts,
            lambda samples, _: samples.std().item(), 1.0, uniform(base, 2), ScheduleConfig(1, 2, 1),
        )  # fmt: skip
        Loop(algorithm, LoopConfig(1, 0.1, progress=False)).run()
        assert all(torch.equal(weights[name], tensor) for name, tensor in base.transformer.state_dict().items())
        assert not torch.equal(algorithm.model.mean.detach(), numbers_of(uniform(base, 2)))

    def test_a_usual_diversity_of_nothing(self):
        for usual in (0.0, float("nan")):
            with pytest.raises(RolloutError, match="usual_diversity"):
                ScheduleSearch(Toy(), None, None, None, usual, uniform(Toy(), 2))
