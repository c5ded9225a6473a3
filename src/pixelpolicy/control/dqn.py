"""Deep Q-learning: a network in place of the table, with replay and a target network (Mnih et al. 2013)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pixelpolicy.control.environments import action_count, evaluate, make, observation_size
from pixelpolicy.control.networks import Scaled
from pixelpolicy.control.replay import Replay
from pixelpolicy.control.td import epsilon_greedy
from pixelpolicy.control.trajectory import Collector
from pixelpolicy.errors import TrainingError

VALIDATION_SEED = 900_000  # of episodes that choose the weights; no result is taken from them


@dataclass(frozen=True)
class DQNConfig:
    """The defaults are for CartPole."""

    observation_scale: tuple[float, ...] = (1.0, 1.0, 0.1, 1.0)  # what observations are divided by: the angle is small
    hidden: tuple[int, ...] = (128, 128)
    envs: int = 16
    iterations: int = 60
    steps: int = 16  # of each environment, an iteration
    updates: int = 128  # an iteration
    target_every: int = 32  # updates, after which the target network takes the weights of the other
    batch: int = 128
    warm_up: int = 1_000  # transitions before the first update
    capacity: int = 50_000
    ahead: int = 1  # rewards that are summed before the network guesses the rest
    discount: float = 0.97
    learning_rate: float = 1e-3  # falls linearly to a tenth
    epsilon: tuple[float, float] = (1.0, 0.05)  # from, to; there after half of the iterations
    validate_every: int = 2  # iterations
    validation_episodes: int = 50
    enough: float = 499.0  # mean return in validation at which training stops


@dataclass
class DQNResult:
    """The network of the best validation, and what was reported on the way."""

    network: nn.Module
    log: list[dict[str, float]]

    @torch.no_grad()
    def greedy(self, observations: Float[Tensor, "batch size"]) -> Int[Tensor, "batch"]:
        return self.network(observations).argmax(-1)


def q_network(
    scale: tuple[float, ...], hidden: tuple[int, ...], envs: VectorEnv, stream: torch.Generator
) -> nn.Sequential:
    """Observations, divided by ``scale``, to one value an action; weights uniform, as wide as the inputs allow."""
    size, layers = observation_size(envs), []
    for inputs, outputs in zip((size, *hidden), (*hidden, action_count(envs)), strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        for parameter in layers[-2].parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=stream)
    return nn.Sequential(Scaled(scale, size), *layers[:-1])


def dqn_targets(
    returns: Float[Tensor, "batch"],
    next_online: Float[Tensor, "batch actions"],
    next_target: Float[Tensor, "batch actions"],
    terminated: Bool[Tensor, "batch"],
    discounts: Float[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """``G + discount * Q_target(s', argmax Q_online(s'))``, and ``G`` where the world ended. Without gradient.

    Double Q-learning (van Hasselt et al. 2016): one network chooses the next action, the other judges it. A step at
    which the clock ran out is not terminated: its last state is worth what the network says.
    """
    chosen = next_online.argmax(-1, keepdim=True)
    worth = next_target.gather(-1, chosen).squeeze(-1)
    return (returns + discounts * worth * ~terminated).detach()


def train(
    name: str = "CartPole-v1",
    config: DQNConfig | None = None,
    *,
    seed: int,
    targets: Callable[..., Tensor] = dqn_targets,
    explore: Callable[[Tensor, float], Tensor] = epsilon_greedy,
    report: Callable[[dict[str, float]], None] | None = None,
) -> DQNResult:
    """Learn action values; ``targets`` says what they should be, ``explore`` gives the probability of each action.

    Raises `ControlError` for spaces other than a flat Box and Discrete actions, a scale that does not fit them, or a
    discount outside [0, 1], and `TrainingError` for a gradient that is not finite.
    """
    config = config or DQNConfig()
    replay = Replay(config.capacity, ahead=config.ahead, discount=config.discount, seed=seed)
    envs, stream = make(name, config.envs), torch.Generator().manual_seed(seed)
    network = q_network(config.observation_scale, config.hidden, envs, stream)
    target, best, best_return = copy.deepcopy(network), network, -float("inf")
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    collector, log = Collector(envs, seed=seed), []
    for iteration in range(1, config.iterations + 1):
        share = (iteration - 1) / config.iterations
        epsilon = _between(config.epsilon, 2 * share)
        optimiser.param_groups[0]["lr"] = config.learning_rate * _between((1.0, 0.1), share)
        replay.add(collector.collect(_acting(network, explore, epsilon, stream), config.steps))
        if len(replay) < config.warm_up:
            continue
        for update in range(config.updates):
            if update % config.target_every == 0:
                target.load_state_dict(network.state_dict())
            loss, values = _loss(network, target, replay.sample(config.batch), targets)
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            if not norm.isfinite():
                raise TrainingError(f"the gradient of iteration {iteration} is {norm}; look at the targets given to it")
            optimiser.step()
        if iteration % config.validate_every and iteration < config.iterations:
            continue
        greedy = DQNResult(network, log).greedy
        score = evaluate(greedy, name, episodes=config.validation_episodes, seed=VALIDATION_SEED).mean().item()
        steps = iteration * config.steps * config.envs
        log.append({"steps": steps, "return": score, "value": values.mean().item(), "loss": loss.item()})
        if report:
            report(log[-1])
        if score >= best_return:
            best, best_return = copy.deepcopy(network), score
        if score >= config.enough:
            break
    envs.close()
    return DQNResult(best, log)


def _acting(network: nn.Module, explore: Callable, epsilon: float, stream: torch.Generator) -> Callable:
    def act(observations: Tensor) -> tuple[Tensor, Tensor]:
        chances = explore(network(observations), epsilon)
        actions = torch.multinomial(chances, 1, generator=stream)
        return actions.squeeze(-1), chances.gather(-1, actions).squeeze(-1).log()

    return act


def _loss(network: nn.Module, target: nn.Module, batch: dict[str, Tensor], targets: Callable) -> tuple[Tensor, Tensor]:
    """Mean square between the value of the action taken and its target; and those values."""
    values = network(batch["observations"]).gather(-1, batch["actions"][:, None]).squeeze(-1)
    with torch.no_grad():
        online, judged = network(batch["arrivals"]), target(batch["arrivals"])
    wanted = targets(batch["returns"], online, judged, batch["ended"], batch["discounts"])
    return nn.functional.mse_loss(values, wanted), values.detach()


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * min(share, 1.0)
