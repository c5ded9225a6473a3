"""The figures of chapter 04: `python benchmarks/figure_04.py`. It trains an actor on CartPole and one on Pendulum."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import control, viz
from pixelpolicy.control import ppo
from pixelpolicy.course.files import course_root
from pixelpolicy.rl import clipped_surrogate, gae
from pixelpolicy.viz.figures import OTHERS

SEED = 0


def promise(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """The surrogate without a clip."""
    return -(advantages * (log_probs - old_log_probs).exp()).mean()


def squeeze(learner: ppo.PPO, batch: dict[str, Tensor], loss: Callable, steps: int, every: int) -> dict[str, list]:
    """Many steps on one batch: what it promises, what the actor earns, how far it is from where it was."""
    policy, rows = copy.deepcopy(learner.policy), {"promise": [], "return": [], "kl": []}
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for step in range(steps + 1):
        log_probs = policy.log_prob(batch["observations"], batch["actions"])
        if step % every == 0:
            shift = (log_probs - batch["log_probs"]).detach()
            earned = control.evaluate(lambda o: policy.act(o)[0], "CartPole-v1", episodes=64, seed=SEED)
            rows["promise"].append((batch["advantages"] * shift.exp()).mean().item())
            rows["return"].append(earned.mean().item())
            rows["kl"].append((shift.exp() - 1 - shift).mean().item())
        optimiser.zero_grad()
        loss(log_probs, batch["log_probs"], batch["advantages"], 0.2).backward()
        optimiser.step()
    return rows


def one_batch(steps: int = 90, every: int = 10, batches: int = 4) -> viz.Picture:
    """Batches of a half-trained actor, each climbed alone, by the clipped loss and by the bare promise."""
    config = replace(ppo.PPOConfig(), iterations=15, anneal=False)
    learner = ppo.PPO(control.make("CartPole-v1", config.copies), config, seed=SEED)
    for _ in range(config.iterations):
        learner.iteration()
    played = [learner.play() for _ in range(batches)]
    lines = {
        name: [squeeze(learner, batch, loss, steps, every) for batch in played]
        for name, loss in (("the clipped loss", clipped_surrogate), ("the bare promise", promise))
    }
    titles = {"promise": "what the batch promises", "return": "what the actor earns", "kl": "KL from the old actor"}
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for colour, marker, (name, runs) in zip(OTHERS, "os", lines.items(), strict=False):
            for number, rows in enumerate(runs):
                style = {"marker": marker, "color": colour, "markersize": 4, "label": "" if number else name}
                axis.plot(range(0, steps + 1, every), rows[key], **style)
        axis.set(title=title, xlabel="steps on the same batch")
        axis.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False, fontsize=8)
    ends = {name: [[round(rows[key][-1], 2) for rows in runs] for key in titles] for name, runs in lines.items()}
    print(f"earned before: {lines['the bare promise'][0]['return'][0]:.0f}; promise, return and KL at the end: {ends}")
    return viz.picture(figure, alt="Three panels of promise, return and KL over steps on one batch.")


def dial(walks: int = 20_000, length: int = 60, discount: float = 0.9) -> viz.Picture:
    """Error of an advantage by lam on a ring of houses whose worth is known, under a critic that says half of it."""
    pay = torch.cos(2 * math.pi * torch.arange(12).double() / 12)
    moves = sum(torch.eye(12).double().roll(step, 1) for step in (-1, 0, 1)) / 3
    worth = torch.linalg.solve(torch.eye(12).double() - discount * moves, moves @ pay)
    exact = (pay[2] + discount * worth[2] - pay[4] - discount * worth[4]).item()
    lams, stream, gaps = torch.linspace(0, 1, 21).tolist(), torch.Generator().manual_seed(SEED), []
    paths = []
    for first in (-1, 1):
        steps = torch.randint(-1, 2, (length, walks), generator=stream)
        steps[0] = first
        paths.append((3 + torch.cat([torch.zeros(1, walks).long(), steps.cumsum(0)])) % 12)
    never = torch.zeros(length, walks, dtype=torch.bool)
    for lam in lams:
        left, right = (
            gae(pay[path[1:]], worth[path[:-1]] / 2, never, worth[path[-1]] / 2, discount, lam)[0] for path in paths
        )
        gaps.append(((left - right).mean().item() - exact, (left - right).std().item()))
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for colour, count in zip(OTHERS, (1, 4, 16, 64), strict=False):
        errors = [math.hypot(bias, spread / count**0.5) for bias, spread in gaps]
        lowest = min(range(len(lams)), key=errors.__getitem__)
        axis.plot(lams, errors, color=colour, label=f"mean of {count}")
        axis.plot(lams[lowest], errors[lowest], "o", color=colour)
        print(f"mean of {count}: best lam {lams[lowest]:.2f}, error {errors[lowest]:.2f}")
    axis.set(xlabel="lam", ylabel="error of the advantage", ylim=(0, 5.5))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8, title="walks averaged", title_fontsize=8)
    print(f"exact {exact:.2f}; bias {gaps[0][0]:.2f} at lam 0, {gaps[-1][0]:.2f} at 1; spread {gaps[-1][1]:.2f} at 1")
    return viz.picture(figure, alt="Four curves of error against lam; the minimum moves to the right with more walks.")


def clip(clip_range: float = 0.2) -> viz.Picture:
    """The clipped loss of one action against its ratio, for both signs of the advantage, and where it has no slope."""
    ratios = torch.linspace(0.4, 1.6, 121)
    figure = Figure(figsize=(8.5, 3.0), layout="constrained")
    for axis, gain in zip(figure.subplots(1, 2, sharex=True), (1.0, -1.0), strict=True):
        one = torch.tensor([gain])
        losses = [clipped_surrogate(r.log()[None], torch.zeros(1), one, clip_range).item() for r in ratios]
        axis.plot(ratios, -gain * ratios, "--", color="#777777", linewidth=1, label="without the clip")
        axis.plot(ratios, losses, color=OTHERS[gain < 0], linewidth=2, label="clipped")
        flat = (1 + clip_range, 1.6) if gain > 0 else (0.4, 1 - clip_range)
        axis.axvspan(*flat, color="#999999", alpha=0.2, linewidth=0)
        axis.text(sum(flat) / 2, axis.get_ylim()[1], "no gradient", fontsize=8, ha="center", va="top")
        axis.set(title=f"advantage {gain:+.0f}", xlabel="ratio", ylabel="loss")
        axis.legend(frameon=False, fontsize=8, loc="lower left" if gain > 0 else "lower right")
    return viz.picture(figure, alt="Two panels of the clipped loss.")


def pendulum() -> viz.Picture:
    """What an actor and its critic have learnt about a pendulum, over all its states, with one episode."""
    more = {"copies": 32, "minibatches": 8, "iterations": 100, "lam": 0.9, "observation_scale": (0.5, 0.5, 4.0)}
    config = replace(ppo.PENDULUM, **more)
    trained = ppo.train("Pendulum-v1", config, seed=SEED)
    earned = control.evaluate(trained.policy.greedy, "Pendulum-v1", seed=1000)
    angles, speeds = torch.linspace(-math.pi, math.pi, 161), torch.linspace(-8, 8, 121)
    angle, speed = torch.meshgrid(angles, speeds, indexing="xy")
    states = torch.stack([angle.cos(), angle.sin(), speed], -1).reshape(-1, 3)
    with torch.no_grad():
        torque = trained.policy.greedy(states).clamp(-2, 2).view(angle.shape)
        value = (trained.critic(states) / config.reward_scale).view(angle.shape)
    player = control.Collector(control.make("Pendulum-v1", 1), seed=4)
    lived = player.collect(lambda o: (trained.policy.greedy(o), torch.zeros(len(o))), 199).observations[:, 0]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    maps = (("the actor's torque", torque, "PuOr"), ("the critic's value", value, "cividis"))
    for axis, (title, shown, colours) in zip(figure.subplots(1, 2), maps, strict=True):
        drawn = axis.pcolormesh(angles, speeds, shown, cmap=colours, shading="nearest", rasterized=True)
        axis.plot(torch.atan2(lived[:, 1], lived[:, 0]), lived[:, 2], ".", color="black", markersize=5)
        axis.plot(torch.atan2(lived[:, 1], lived[:, 0]), lived[:, 2], ".", color="white", markersize=2)
        axis.set(title=title, xlabel="angle (0 is upright)", ylabel="speed")
        figure.colorbar(drawn, ax=axis)
    return viz.picture(figure, alt=f"Two maps; mean return of 100 episodes {earned.mean():.0f}")


def main() -> None:
    torch.set_num_threads(1)
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for name, make in (("one-batch", one_batch), ("dial", dial), ("clip", clip), ("pendulum", pendulum)):
        picture = make()
        picture.save(folder / f"04-{name}.png")
        print(f"04-{name}.png: {picture.alt}")


if __name__ == "__main__":
    main()
