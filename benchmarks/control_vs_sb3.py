"""Seconds until PPO balances CartPole, ours beside two others: `python benchmarks/control_vs_sb3.py`.

Three ways to the same end, each with its own settings, one thread each, in turns:

- ours: `control.ppo` with its `CARTPOLE` settings, on Gymnasium's batched CartPole.
- sb3: stable-baselines3 with the settings that rl-baselines3-zoo publishes for CartPole-v1 (hyperparams/ppo.yml): 8
  copies in a DummyVecEnv, 32 steps, batches of 256, 20 epochs, GAE lambda 0.8, discount 0.98, no entropy bonus,
  learning rate 1e-3 and clip range 0.2, both falling to 0 over 100,000 steps.
- loop: a single file in the style of CleanRL, below, with the settings well known from there: 4 copies, 128 steps, 4
  epochs of 4 minibatches, GAE lambda 0.95, discount 0.99, entropy bonus 0.01, learning rate 2.5e-4 falling to 0 over
  500,000 steps, clip range 0.2 for the policy and the values.

All three have the same two networks, two layers of 64 with tanh. One rule for all: at the first pause after every
1,024 steps the greedy policy plays 100 episodes; the run ends once their mean return is 475. Making environments and
networks counts, these evaluations do not. A run that spends its steps without getting there counts with all its time.

stable-baselines3 serves this script alone: `pip install -e ".[bench]" --constraint constraints.txt`.
`--quick` shows in half a minute that everything runs; its numbers mean nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO as OtherPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from pixelpolicy import control
from pixelpolicy.control import ppo
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import record

NAME, ENVIRONMENT = "control-vs-sb3", "CartPole-v1"
GOAL, EPISODES, EVERY = 475.0, 100, 1024
SB3 = {
    "policy": "MlpPolicy", "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
    "ent_coef": 0.0,
}  # fmt: skip
SB3_COPIES, SB3_STEPS, SB3_LEARNING_RATE, SB3_CLIP_RANGE = 8, 100_000, 1e-3, 0.2


@dataclass
class Judge:
    """A clock that stands still while it evaluates; the same rule for every way."""

    seed: int
    most_steps: int
    wall: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    score: float = 0.0
    began: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))

    def over(self, steps: int, greedy: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        """Whether to stop after so many ``steps``; evaluates if 1,024 have passed since the last time."""
        if steps // EVERY == self.steps // EVERY and steps < self.most_steps:
            return False
        self.wall += time.perf_counter() - self.began[0]
        self.cpu += time.process_time() - self.began[1]
        self.steps = steps
        self.score = control.evaluate(greedy, ENVIRONMENT, episodes=EPISODES, seed=1000 + self.seed).mean().item()
        self.began = time.perf_counter(), time.process_time()
        return self.score >= GOAL or steps >= self.most_steps

    def figures(self) -> dict[str, float]:
        return {
            "wall_seconds": self.wall, "cpu_seconds": self.cpu, "steps": self.steps, "score": self.score,
            "reached": int(self.score >= GOAL),
        }  # fmt: skip


def ours(seed: int, judge: Judge) -> None:
    envs = control.make(ENVIRONMENT, ppo.CARTPOLE.copies)
    agent = ppo.PPO(envs, ppo.CARTPOLE, seed=seed)
    while not judge.over(agent.steps, agent.policy.greedy):
        agent.iteration()


# stable-baselines3 -------------------------------------------------------------------------------------------


class Watch(BaseCallback):
    """Asks the judge between an update and the next rollout."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge, self.ended = judge, False

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.model.policy.get_distribution(observations).mode()

    def _on_rollout_start(self) -> None:
        self.ended = self.judge.over(self.num_timesteps, self.greedy)

    def _on_step(self) -> bool:
        return not self.ended


def sb3(seed: int, judge: Judge) -> None:
    envs = make_vec_env(ENVIRONMENT, n_envs=SB3_COPIES, seed=seed)
    model = OtherPPO(
        env=envs, seed=seed, device="cpu", learning_rate=lambda left: left * SB3_LEARNING_RATE,
        clip_range=lambda left: left * SB3_CLIP_RANGE, **SB3,
    )  # fmt: skip
    watch = Watch(judge)
    model.learn(SB3_STEPS, callback=watch)
    if not watch.ended:
        judge.over(model.num_timesteps, watch.greedy)


# The loop ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Args:
    learning_rate: float = 2.5e-4
    num_envs: int = 4
    num_steps: int = 128
    gamma: float = 0.99
    gae_lambda: float = 0.95
    num_minibatches: int = 4
    update_epochs: int = 4
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    total_timesteps: int = 500_000


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


def loop(seed: int, judge: Judge, args: Args = Args()) -> None:  # noqa: B008
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    # This style takes the first state of the next episode for the state after the last.
    envs = SyncVectorEnv(
        [lambda: gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(ENVIRONMENT))] * args.num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    actor = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 2, 0.01))
    critic = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=args.learning_rate, eps=1e-5)

    shape = (args.num_steps, args.num_envs)
    obs, actions = torch.zeros(*shape, 4), torch.zeros(shape)
    logprobs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    next_obs, next_done = torch.tensor(envs.reset(seed=seed)[0]), torch.zeros(args.num_envs)
    batch_size = args.num_envs * args.num_steps
    minibatch_size = batch_size // args.num_minibatches
    global_step, iterations = 0, args.total_timesteps // batch_size

    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = (1 - iteration / iterations) * args.learning_rate
        for step in range(args.num_steps):
            global_step += args.num_envs
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                distribution = torch.distributions.Categorical(logits=actor(next_obs))
                action = distribution.sample()
                values[step] = critic(next_obs).flatten()
            actions[step], logprobs[step] = action, distribution.log_prob(action)
            given, reward, terminated, truncated, _ = envs.step(action.numpy())
            rewards[step] = torch.tensor(reward)
            next_obs, next_done = torch.tensor(given), torch.tensor(terminated | truncated, dtype=torch.float32)

        with torch.no_grad():
            next_value = critic(next_obs).flatten()
        advantages, following = torch.zeros(shape), torch.zeros(args.num_envs)
        for t in reversed(range(args.num_steps)):
            alive = 1 - (next_done if t == args.num_steps - 1 else dones[t + 1])
            worth = next_value if t == args.num_steps - 1 else values[t + 1]
            delta = rewards[t] + args.gamma * alive * worth - values[t]
            advantages[t] = following = delta + args.gamma * args.gae_lambda * alive * following
        returns = (advantages + values).flatten()
        b_obs, b_actions, b_logprobs = obs.flatten(0, 1), actions.flatten(), logprobs.flatten()
        b_advantages, b_values = advantages.flatten(), values.flatten()

        indices = np.arange(batch_size)
        for _ in range(args.update_epochs):
            generator.shuffle(indices)
            for start in range(0, batch_size, minibatch_size):
                rows = indices[start : start + minibatch_size]
                distribution = torch.distributions.Categorical(logits=actor(b_obs[rows]))
                ratio = (distribution.log_prob(b_actions[rows]) - b_logprobs[rows]).exp()
                judged = b_advantages[rows]
                judged = (judged - judged.mean()) / (judged.std() + 1e-8)
                near = torch.clamp(ratio, 1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = torch.max(-judged * ratio, -judged * near).mean()
                new, old = critic(b_obs[rows]).flatten(), b_values[rows]
                held = old + torch.clamp(new - old, -args.clip_coef, args.clip_coef)
                value_loss = 0.5 * torch.max((new - returns[rows]) ** 2, (held - returns[rows]) ** 2).mean()
                entropy = distribution.entropy().mean()
                loss = policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
                optimizer.step()
        if judge.over(global_step, lambda observations: actor(observations).argmax(-1)):
            return


# All three ---------------------------------------------------------------------------------------------------

WAYS = {"ours": ours, "sb3": sb3, "loop": loop}
MOST_STEPS = {
    "ours": ppo.CARTPOLE.iterations * ppo.CARTPOLE.copies * ppo.CARTPOLE.steps,
    "sb3": SB3_STEPS,
    "loop": Args.total_timesteps // 512 * 512,
}


def run(way: str, seed: int, most_steps: int) -> dict[str, float]:
    judge = Judge(seed, most_steps)
    WAYS[way](seed, judge)
    return judge.figures()


def times_as_fast(runs: dict[str, list[dict[str, float]]], other: str) -> dict[str, float]:
    """How many times the median seconds of ``other`` are those of ours, and the range over the seeds."""
    found = {}
    for clock in ("wall", "cpu"):
        seconds = {way: [each[f"{clock}_seconds"] for each in runs[way]] for way in ("ours", other)}
        pairs = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds[other], strict=True)]
        found |= {
            f"{clock}_ratio": statistics.median(seconds[other]) / statistics.median(seconds["ours"]),
            f"{clock}_lowest": min(pairs),
            f"{clock}_highest": max(pairs),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10, help="how many, counted from 0")
    parser.add_argument("--out", type=Path, help="where the record goes; with --quick nowhere unless given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cpu, wall = time.process_time(), time.perf_counter()
    most = {way: min(steps, 2048) if asked.quick else steps for way, steps in MOST_STEPS.items()}
    for way in WAYS:  # warms up
        run(way, 99, 2048)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in range(1 if asked.quick else asked.seeds):
        order = list(WAYS)[seed % 3 :] + list(WAYS)[: seed % 3]  # each way begins, follows and ends in turn
        for way in order:
            runs[way].append(run(way, seed, most[way]))
            print(f"seed {seed} {way}:", {k: round(v, 2) for k, v in runs[way][-1].items()}, flush=True)
    metrics = {
        way: {key: [each[key] for each in found] for key in found[0]}
        | {f"median_{clock}": statistics.median(each[clock] for each in found)
           for clock in ("wall_seconds", "cpu_seconds", "steps")}
        for way, found in runs.items()
    }  # fmt: skip
    metrics |= {f"ours_vs_{other}": times_as_fast(runs, other) for other in ("sb3", "loop")}
    metrics["settings"] = {"goal": GOAL, "episodes": EPISODES, "evaluated_every": EVERY, "most_steps": most}
    for other in ("sb3", "loop"):
        found = metrics[f"ours_vs_{other}"]
        print(
            f"{other} takes {found['wall_ratio']:.2f}x our wall time ({found['wall_lowest']:.2f} to "
            f"{found['wall_highest']:.2f} by seed), {found['cpu_ratio']:.2f}x our CPU time"
        )
    entry = record(
        NAME, metrics, seed=0, seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu,
        source=__file__,
    )  # fmt: skip
    path = asked.out or (None if asked.quick else course_root() / "benchmarks" / f"{NAME}.json")
    if path:
        write_json(path, [entry])


if __name__ == "__main__":
    main()
