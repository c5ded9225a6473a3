"""Learning from pairs: Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908) for flows, and the losses of its relatives
D3PO (Yang et al. 2023, arXiv 2311.13231), SPO (Liang et al. 2024, arXiv 2406.04314) and Diffusion-KTO (Li et al. 2024,
arXiv 2404.04465), whose algorithms are in `step_aware` and `kto`.

A diffusion model has no likelihood to compare at hand. Its matching error takes the place of minus the logarithm.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.finetune.noising import matching_errors, noise_of, noised, pictures_of
from pixelpolicy.finetune.processes import total
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import Reward, dpo_loss

PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# Losses ---------------------------------------------------------------------------------------------------------------


def diffusion_dpo_loss(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
    *,
    beta: float = 100.0,
    anchor: float = 0.0,
) -> Float[Tensor, ""]:
    """``mean -log sigmoid(-beta/2 [(e_w - b_w) - (e_l - b_l)])`` of matching errors, the mean over dimensions.

    ``e`` are the errors of the network in training and ``b`` those of the base, which carry no gradient; all four at
    the *same noise and noise level* in a pair. Only the difference counts, and a network may win it by spoiling the
    loser more than the winner: likelihood displacement. ``anchor`` mends that with ``anchor beta/2 mean relu(e_w -
    b_w)``: a winner may not be matched worse than by the base. It is the penalty of DPO-Positive (Pal et al. 2024,
    arXiv 2402.13228), put outside the sigmoid, where it does not fade once a pair is told apart. A plain matching loss
    on the winner would pull for ever, and towards the network's own slightly blurred samples; this one rests where
    nothing is displaced.

    Raises `RolloutError` for arguments of different shapes or none at all, `ValueError` for ``beta <= 0``.
    """
    value = dpo_loss(-winner / 2, -loser / 2, -base_winner / 2, -base_loser / 2, beta)
    return value + anchor * beta / 2 * (winner - base_winner.detach()).relu().mean() if anchor else value


def d3po_loss(
    log_probs_winner: Float[Tensor, "pairs"],
    log_probs_loser: Float[Tensor, "pairs"],
    old_winner: Float[Tensor, "pairs"],
    old_loser: Float[Tensor, "pairs"],
    *,
    beta: float = 0.1,
    clip_range: float = 0.1,
) -> Float[Tensor, ""]:
    """D3PO: DPO on single denoising steps, ``mean -log sigmoid(beta [log clip(rho_w) - log clip(rho_l)])``.

    ``rho = exp(log_prob - old)``, where ``old`` are the base's log-probabilities, is bounded to ``1 +- clip_range``,
    and so is the loss: to [0.6832, 0.7032] as published. Outside the bounds there is no gradient at all, on either
    side. SPO has the same form with ``beta=10`` (`spo_loss`), on pairs of steps that leave from one state.
    """
    low, high = np.log1p([-clip_range, clip_range]).tolist()
    won, lost = (log_probs_winner - old_winner).clamp(low, high), (log_probs_loser - old_loser).clamp(low, high)
    return dpo_loss(won, lost, torch.zeros_like(won), torch.zeros_like(lost), beta)


spo_loss = partial(d3po_loss, beta=10.0)


def diffusion_kto_loss(
    errors: Float[Tensor, "batch"],
    base_errors: Float[Tensor, "batch"],
    wanted: Bool[Tensor, "batch"],
    *,
    beta: float = 100.0,
    weight_wanted: float = 1.0,
    weight_unwanted: float = 1.0,
) -> Float[Tensor, ""]:
    """Diffusion-KTO: ``mean w (1 - sigmoid(s beta (g - z)))`` with ``g = base_error - error``: no pairs are needed.

    ``s`` is +1 for a wanted sample and -1 for an unwanted one, each kind has its weight ``w``, and ``z = max(0, mean
    g)`` is what the batch has gained anyway. Neither ``z`` nor the base carries gradient.
    """
    gain = base_errors.detach() - errors
    expected = gain.detach().mean().clamp_min(0)
    sign = torch.where(wanted, 1.0, -1.0).to(gain.dtype)
    weight = torch.where(wanted, weight_wanted, weight_unwanted).to(gain.dtype)
    return (weight * (1 - F.sigmoid(sign * beta * (gain - expected)))).mean()


# Pairs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Final latents of two samples of each prompt, the better and the worse.

    Raises `TrainingError` for parts of different lengths.
    """

    prompts: list[str]
    winners: Float[Tensor, "pairs ..."]
    losers: Float[Tensor, "pairs ..."]

    def __post_init__(self) -> None:
        if self.winners.shape != self.losers.shape or len(self.winners) != len(self.prompts):
            raise TrainingError(
                f"{len(self.prompts)} prompts came with winners of shape {list(self.winners.shape)} and losers of "
                f"shape {list(self.losers.shape)}; give one winner and one loser a prompt, of equal shapes"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Int[Tensor, "chosen"] | slice) -> Pairs:
        index = torch.arange(len(self))[rows]
        return Pairs([self.prompts[i] for i in index], self.winners[index], self.losers[index])

    @classmethod
    @torch.no_grad()
    def of_samples(
        cls,
        prompts: list[str],
        winners: Tensor,
        losers: Tensor,
        to_latents: Callable[[Tensor], Tensor],
        batch_size: int = 128,
    ) -> Pairs:
        """Pairs of decoded samples; ``to_latents`` takes a batch of them to latents, as an autoencoder does."""

        def latents(samples: Tensor) -> Tensor:
            return torch.cat([to_latents(part).float().cpu() for part in samples.split(batch_size)])

        return cls(prompts, latents(winners), latents(losers))


def best_and_worst(
    rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """The rows of the best and of the worst sample of each group, in the order of the groups' first rows.

    A group whose rewards are all equal has no pair.
    """
    best, worst = [], []
    for group in dict.fromkeys(groups.tolist()):
        rows = (groups == group).nonzero().flatten()
        high, low = rows[rewards[rows].argmax()], rows[rewards[rows].argmin()]
        if rewards[high] > rewards[low]:
            best.append(high)
            worst.append(low)
    none = torch.empty(0, dtype=torch.long)
    return (torch.stack(best), torch.stack(worst)) if best else (none, none)


def repeated(pairs: Pairs, count: int) -> Pairs:
    """As many pairs as are wanted: the given ones over and over. A batch keeps its size where groups teach nothing."""
    return pairs.select(torch.arange(count) % len(pairs))


class Drawn(NamedTuple):
    """Groups of samples of a whole batch, with their rewards and final latents."""

    prompts: list[str]
    groups: Int[Tensor, "batch"]
    rewards: Float[Tensor, "batch"]
    latents: Float[Tensor, "batch ..."]


def sample_groups(
    policy: DenoisingPolicy,
    reward: Reward,
    draw_prompts: Callable[[int, np.random.Generator], list[str]],
    config: BatchConfig,
    rng: np.random.Generator,
    iteration: int,
) -> tuple[Drawn, dict[str, float]]:
    """A batch of the policy's own samples, put together of what each process drew, and metrics of its rewards."""
    prompts, groups = grouped(draw_prompts(config.prompts_per_iteration, rng), config.group_size)
    seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
    division = Division(config, policy.micro_batch, iteration)
    mine = division.mine
    rollout = policy.rollout([prompts[row] for row in mine], seeds=seeds[mine])
    rewards, components = division.judge(reward, rollout)
    latents = torch.zeros(len(prompts), *rollout.states.shape[2:])
    latents[mine] = pictures_of(rollout).float()
    metrics = {"reward": rewards.mean().item()}
    metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
    return Drawn(prompts, groups, rewards, total(latents)), metrics


def pair_states(
    winners: Float[Tensor, "pairs ..."],
    losers: Float[Tensor, "pairs ..."],
    draw: Callable[[], tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs ..."]]],
) -> tuple[Tensor, Tensor, Float[Tensor, "pairs"], Float[Tensor, "pairs ..."]]:
    """Noisy winners and losers at the *same* noise levels and noise, then these; each call of ``draw`` gives new ones.

    With noise of its own for each, the difference of two errors would mostly tell whose noise was the easier.
    """
    sigma, noise = draw()
    return noised(winners, noise, sigma), noised(losers, noise, sigma), sigma, noise


def displacement(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Likelihood displacement in matching errors: by how much winners and losers are matched worse than by the base,
    and, of the pairs told apart, the share whose *winner* is matched worse (0 where none is told apart)."""
    won, lost = winner - base_winner, loser - base_loser
    apart = won < lost
    share = (won[apart] > 0).float().mean() if apart.any() else won.new_zeros(())
    return won.mean(), lost.mean(), share


# The algorithm --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreferenceConfig(BatchConfig):
    """Settings of DPO: ``prompts_per_iteration`` pairs an iteration, each used ``noise_draws`` times with new noise.

    Online pairs are the best and the worst of ``group_size`` samples; pairs of a fixed set do not ask for it.
    """

    prompts_per_iteration: int = 64
    group_size: int = 4
    noise_draws: int = 2


@dataclass
class DiffusionDPO:
    """Diffusion-DPO on a fixed set of ``pairs``; without one, on pairs that the network in training makes.

    Online pairs are the `best_and_worst` of each group by ``reward``. ``loss_of`` takes the matching errors of winner
    and loser, then those of the base. ``states_of`` is where noise is put in. The metrics show both apart: ``winner``
    and ``loser`` are errors, and ``winner_change`` and ``loser_change`` how much greater they are than the base's.
    Where ``winner_change`` climbs above 0 the winners are displaced. ``told_apart`` is the share of pairs whose winner
    gained more.

    Raises `TrainingError` where there are neither pairs nor a reward with prompts.
    """

    policy: DenoisingPolicy
    reward: Reward | None = None
    draw_prompts: Callable[[int, np.random.Generator], list[str]] | None = None
    config: PreferenceConfig = PreferenceConfig()
    pairs: Pairs | None = None
    loss_of: PairLoss = diffusion_dpo_loss
    choose: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = best_and_worst
    noise: Callable[[Tensor, int, tuple[int, ...]], tuple[Tensor, Tensor]] = field(default=noise_of)
    states_of: Callable[[Tensor, Tensor, Callable], tuple[Tensor, Tensor, Tensor, Tensor]] = pair_states

    def __post_init__(self) -> None:
        if self.pairs is None and (self.reward is None or self.draw_prompts is None):
            raise TrainingError("give pairs, or a reward and draw_prompts to make some with")
        if self.pairs is not None and not len(self.pairs):
            raise TrainingError("the set of pairs is empty; give at least one pair")
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[tuple[Pairs, Tensor] | None, dict[str, float]]:
        """The pairs of an iteration that are this process's, and a seed for the noise of each."""
        rng = np.random.default_rng([self.config.seed, iteration])
        pairs, metrics = self._online(rng, iteration) if self.pairs is None else (self._drawn(rng), {})
        if not len(pairs):
            return None, metrics
        pairs = repeated(pairs, self.config.prompts_per_iteration)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(pairs)))
        mine = self._division(iteration).mine
        return (pairs.select(mine), seeds[mine]), metrics

    def _division(self, iteration: int) -> Division:
        return Division(replace(self.config, group_size=1), max(self.policy.micro_batch // 2, 1), iteration)

    def _drawn(self, rng: np.random.Generator) -> Pairs:
        count = min(self.config.prompts_per_iteration, len(self.pairs))
        return self.pairs.select(torch.from_numpy(rng.choice(len(self.pairs), count, replace=False)))

    def _online(self, rng: np.random.Generator, iteration: int) -> tuple[Pairs, dict[str, float]]:
        drawn, metrics = sample_groups(self.policy, self.reward, self.draw_prompts, self.config, rng, iteration)
        best, worst = self.choose(drawn.rewards, drawn.groups)
        pairs = Pairs([drawn.prompts[row] for row in best], drawn.latents[best], drawn.latents[worst])
        return pairs, metrics | {"pairs": float(len(best))}

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """The pairs in ``config.minibatches`` parts, ``config.noise_draws`` times over; none where all groups tie."""
        if experience is None:
            return
        pairs, seeds = experience
        for draw in range(self.config.noise_draws):
            for part in self._division(iteration).optimiser_steps():
                yield [self._loss(pairs.select(rows), seeds[rows], share, draw) for rows, share in part]

    def errors(
        self, pairs: Pairs, seeds: Int[Tensor, "pairs"], draw: int = 0
    ) -> tuple[Float[Tensor, "2*pairs"], Float[Tensor, "2*pairs"]]:
        """Matching errors of the winners and then of the losers: of the network in training, and of the base."""
        generator, shape = self.policy.generator, pairs.winners.shape[1:]
        draws = (self.noise(seeds, draw + 1_000 * again, shape) for again in itertools.count())
        won, lost, sigma, x1 = self.states_of(pairs.winners, pairs.losers, lambda: next(draws))
        x0 = torch.cat([pairs.winners, pairs.losers]).to(generator.device)
        sigma, x1 = (torch.cat([t, t]).to(generator.device) for t in (sigma, x1))  # a pair shares its noise
        state, conditioning = torch.cat([won, lost]).to(generator.device), generator.encode(pairs.prompts * 2)
        errors = matching_errors(generator.velocity(state, sigma, *conditioning), x0, x1)
        with torch.no_grad():
            base = self.reference.generator.velocity(state, sigma, *conditioning)
        return errors, matching_errors(base, x0, x1)

    def _loss(self, pairs: Pairs, seeds: Tensor, share: float, draw: int) -> Callable:
        def loss() -> tuple[Tensor, dict[str, float]]:
            errors, base_errors = self.errors(pairs, seeds, draw)
            value = self.loss_of(*errors.chunk(2), *base_errors.chunk(2))
            winner, loser = errors.detach().chunk(2)
            winner_change, loser_change = (errors.detach() - base_errors).chunk(2)
            return share * value, {
                "winner": winner.mean().item(),
                "loser": loser.mean().item(),
                "winner_change": winner_change.mean().item(),
                "loser_change": loser_change.mean().item(),
                "told_apart": (winner_change < loser_change).float().mean().item(),
            }

        return loss
