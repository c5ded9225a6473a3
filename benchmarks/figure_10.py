"""Chapter 10's figures and its table of results: `python benchmarks/figure_10.py` (two minutes of training in it).

Also writes the figures' alternative texts into the chapter. `--table` rewrites the table alone, `--check` writes
nothing and fails where the table is not that of the records, `--only NAME` draws one figure.
"""

import argparse
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from pixelpolicy import viz
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import Loop, LoopConfig, RewardGradient, RewardGradientConfig, last_steps
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rewards import learned_proxy, redness
from pixelpolicy.rl import Reward
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import shapes

STEPS = 5


def learner(student: ImageGenerator, reward: Reward, count: int = 1, **settings) -> RewardGradient:
    policy = DenoisingPolicy(student, ode, steps=STEPS, micro_batch=48)
    config = RewardGradientConfig(prompts_per_iteration=48, **settings)
    return RewardGradient(policy, reward, shapes.draw_prompts, config, last_steps(count))


def train(algorithm: RewardGradient, iterations: int, watch: Callable[[float], None] | None = None, every: int = 10):
    """Train with averaged weights at the end; ``watch`` is told the CPU seconds of training so far."""
    loop = Loop(algorithm, LoopConfig(iterations, 5e-4, warmup_iterations=2, ema_decay=0.5, name="figure"))
    spent = 0.0
    for number in range(iterations):
        spent += loop.iterate()["cpu_seconds"]
        if watch and (number + 1) % every == 0:
            with loop.averaged_weights():
                watch(spent)
    loop.ema.copy_to(loop.parameters)


# The opening: what the reward wants, and what comes of it ----------------------------------------------------------


def wishes(base: ImageGenerator, columns: int = 7) -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=12)
    pictures = base.generate(prompts, seeds)
    told = [verdict.strict for verdict in shapes.verify(pictures.numpy(), prompts)]
    student = base.student()
    train(learner(student, learned_proxy()), 60)
    after = student.generate(prompts, seeds)
    mended = [verdict.strict for verdict in shapes.verify(after.numpy(), prompts)]
    wrong = [i for i in range(len(prompts)) if not told[i]]
    shown = sorted(wrong[:: max(len(wrong) // columns, 1)][:columns])
    leaf = pictures[shown].requires_grad_()
    (wish,) = torch.autograd.grad(learned_proxy()(leaf, [prompts[i] for i in shown]).sum(), leaf)
    wish = wish / wish.abs().amax((1, 2, 3), keepdim=True)
    figure = Figure(figsize=(1.25 * columns, 4.3))
    for row, (part, frames) in enumerate(((pictures, told), (None, None), (after, mended))):
        for column, index in enumerate(shown):
            axis = figure.add_subplot(3, columns, row * columns + column + 1)
            image = wish[column] if part is None else part[index].detach()
            axis.imshow(((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0), interpolation="nearest")
            axis.set_xticks([]), axis.set_yticks([])
            if row == 0:
                axis.set_title(viz.figures._wrap(prompts[index]), fontsize=6, pad=3)
            for spine in axis.spines.values():
                ok = frames and frames[index]
                spine.set(color="#777777" if frames is None else "#009E73" if ok else "#D55E00", linewidth=2)
                spine.set_linestyle((0, (3, 2)) if frames and not ok else "-")
            if column == 0:
                axis.set_ylabel(("base", "what it wants", "after 60 steps")[row], fontsize=8)
    good = sum(mended[i] for i in shown)
    return viz.picture(
        figure,
        alt=f"Three rows of {len(shown)} pictures. Above, pictures of the base that do not match their prompts, in "
        "dashed red frames. In the middle the gradient of the learned reward in each: grey, with coloured spots "
        "where objects are wrong, missing or too many. Below, the same prompts and noise after 60 training steps: "
        f"{good} of {len(shown)} now match, in solid green frames.",
    )


# Round the reward, and through it ----------------------------------------------------------------------------------


def aim() -> viz.Picture:
    """How well N averaged gradients point, for a reward that is a bowl, by size of the action."""
    counts = [4**n for n in range(6)]
    figure, panels = axes(2)
    told = []
    for axis, size in zip(panels, (16, 256), strict=True):
        repeats, found = 20, {"pathwise": [], "score function": []}
        for count in counts:
            noise = torch.randn(repeats, count, size, generator=torch.Generator().manual_seed(size + count))
            rewards = -(noise - 1).square().sum(-1)
            weighed = (rewards - rewards.mean(1, keepdim=True) if count > 1 else rewards)[..., None] * noise
            for name, gradients in (("pathwise", -2 * (noise - 1)), ("score function", weighed)):
                cosines = F.cosine_similarity(gradients.mean(1), torch.ones(size), dim=1)
                found[name].append(cosines.mean().item())
        for (name, values), style, colour in zip(
            found.items(), ("-", "--"), (viz.COLOURS["reward-gradient"], viz.COLOURS["ddpo"]), strict=True
        ):
            axis.plot(counts, values, style, marker="o", markersize=3, color=colour, label=name)
        axis.set(xscale="log", xlabel="samples averaged", title=f"{size} numbers in an action", ylim=(-0.1, 1.05))
        told.append(f"with {size} numbers one pathwise sample has cosine {found['pathwise'][0]:.2f}, and the score "
                    f"function {found['score function'][0]:.2f} with one and {found['score function'][-1]:.2f} with "
                    f"{counts[-1]}")  # fmt: skip
    panels[0].set_ylabel("cosine with the exact gradient")
    panels[1].legend(frameon=False, fontsize=8, loc="lower right")
    return viz.picture(
        figure, alt=f"Two panels, the cosine of an averaged gradient with the exact one: {'; '.join(told)}."
    )


# Which steps carry gradient ----------------------------------------------------------------------------------------


def windows(steps: int = 8) -> viz.Picture:
    rows = {
        "all steps": (set(range(steps)), steps),
        "DRaFT-3": (set(range(steps - 3, steps)), steps),
        "DRaFT-1": ({steps - 1}, steps),
        "AlignProp, one draw": (set(range(2, steps)), steps),
        "AlignProp, another": (set(range(6, steps)), steps),
        "ReFL, one draw": (set(), 4),
    }
    figure = Figure(figsize=(8.4, 2.8), layout="constrained")
    axis = figure.subplots()
    for row, (learning, last) in enumerate(rows.values()):
        for step in range(last):
            on = step in learning
            axis.annotate("", (step + 1, -row), (step, -row), arrowprops={
                "arrowstyle": "-|>", "lw": 2.4 if on else 1.2, "ls": "-" if on else ":",
                "color": viz.COLOURS["reward-gradient"] if on else "#777777"})  # fmt: skip
        if last < steps:
            axis.annotate("", (steps, -row), (last, -row), arrowprops={
                "arrowstyle": "-|>", "lw": 2.4, "color": viz.COLOURS["reward-gradient"],
                "connectionstyle": "arc3,rad=-0.15"})  # fmt: skip
            axis.text((last + steps) / 2, -row - 0.05, "one leap", fontsize=8, ha="center", va="top", color="#777777")
    axis.set_yticks([-row for row in range(len(rows))], list(rows))
    axis.set_xticks([0, steps], ["noise", "picture"])
    axis.set(xlim=(-0.2, steps + 0.2), ylim=(0.5 - len(rows), 0.6))
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
    return viz.picture(
        figure,
        alt=f"A walk of {steps} steps from noise to picture, a row a method; steps with gradient are thick. All steps: "
        "every one. DRaFT-3: the last three. DRaFT-1: the last. AlignProp: from a random step to the end, drawn anew "
        "each time. ReFL: none of the walk, which stops in the middle, but one leap from there to the picture.",
    )


# The price of a longer chain ---------------------------------------------------------------------------------------


def chain(base: ImageGenerator) -> viz.Picture:
    """Memory that is kept, and the length of the gradient, against the number of steps with gradient."""
    texts, count = shapes.draw_prompts(16, np.random.default_rng(0)), 16
    ks, kept, lengths = [1, 2, 4, 6, 8, 10], {False: [], True: []}, []
    for checkpointing, found in kept.items():
        algorithm = learner(base.student(), learned_proxy(), checkpointing=checkpointing)
        algorithm.policy = DenoisingPolicy(algorithm.policy.generator, ode, steps=10, micro_batch=count)
        weights = {p.data_ptr() for p in algorithm.model.parameters()}
        for k in ks:
            sizes: dict[int, int] = {}

            def keep(tensor: Tensor, sizes=sizes, weights=weights) -> Tensor:
                if tensor.data_ptr() not in weights:
                    sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                samples, _ = algorithm.samples(texts, torch.arange(count), (10 - k, 10))
            found.append(sum(sizes.values()) / 2**20)
            if not checkpointing:
                algorithm.model.zero_grad()
                learned_proxy()(samples, texts).mean().backward()
                grads = [p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None]
                lengths.append(torch.cat(grads).norm().item())
    figure, (left, right) = axes(2)
    left.plot(ks, kept[False], "-", marker="o", markersize=3, color=OTHERS[0], label="all kept")
    left.plot(ks, kept[True], "--", marker="o", markersize=3, color=OTHERS[1], label="checkpointed")
    left.set(xlabel="steps with gradient, of 10", ylabel="kept for the way back, MB", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    right.plot(ks, lengths, "-", marker="o", markersize=3, color=viz.COLOURS["reward-gradient"])
    right.set(xlabel="steps with gradient, of 10", ylabel="length of the gradient", ylim=(0, None))
    return viz.picture(
        figure,
        alt=f"Two panels against the number of steps with gradient, of 10. Left, megabytes kept for 16 pictures: from "
        f"{kept[False][0]:.0f} to {kept[False][-1]:.0f} with everything kept, from {kept[True][0]:.0f} to "
        f"{kept[True][-1]:.0f} with checkpointing. Right, the length of the gradient: {lengths[0]:.1f} for one step, "
        f"{lengths[-1]:.1f} for all ten.",
    )


# The hack ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def judged(generator: ImageGenerator, reward: Reward) -> dict[str, float]:
    texts, seeds = shapes.evaluation_pairs("validation", 48)
    pictures = generator.generate(texts, seeds)
    scores = shapes.measure(pictures.numpy(), texts)
    values = {"climbed": reward(pictures, texts), "proxy": learned_proxy()(pictures, texts)}
    return {key: value.mean().item() for key, value in values.items()} | {"accuracy": scores["accuracy"]}


def hack(base: ImageGenerator, iterations: int = 40) -> viz.Picture:
    rewards = {"climbing redness": redness(), "climbing the proxy": learned_proxy()}
    figure, panels = axes(2)
    ends = []
    for axis, (name, reward) in zip(panels, rewards.items(), strict=True):
        student = base.student()
        log = [judged(student, reward) | {"seconds": 0.0}]
        train(
            learner(student, reward),
            iterations,
            lambda spent, log=log, s=student, r=reward: log.append(judged(s, r) | {"seconds": spent}),
            every=4,
        )
        lines = {"what is climbed": "climbed", "the proxy": "proxy", "strict accuracy": "accuracy"}
        colours = (viz.COLOURS["reward-gradient"], OTHERS[1], OTHERS[0])
        for (label, key), style, colour in zip(lines.items(), ("-", ":", "--"), colours, strict=True):
            if key != "proxy" or axis is panels[0]:
                axis.plot([row["seconds"] for row in log], [row[key] for row in log], style, color=colour, label=label)
        axis.set(xlabel="CPU seconds of training", title=name)
        ends.append(f"{name}, climbed {log[0]['climbed']:.2f} to {log[-1]['climbed']:.2f}, accuracy "
                    f"{log[0]['accuracy']:.2f} to {log[-1]['accuracy']:.2f}")  # fmt: skip
    panels[0].legend(frameon=False, fontsize=8)
    low = min(axis.get_ylim()[0] for axis in panels)
    high = max(axis.get_ylim()[1] for axis in panels)
    for axis in panels:
        axis.set_ylim(low, high)
    return viz.picture(
        figure, alt=f"DRaFT-1 on two rewards over the CPU seconds of training. From start to end: {'; '.join(ends)}."
    )


# The table ---------------------------------------------------------------------------------------------------------


def table() -> str:
    """The recorded race and the recorded long run: medians over seeds, in brackets the lowest and the highest."""
    folder = ROOT / "benchmarks"
    race, long = (
        read_benchmark(path) if path.exists() else []
        for path in (folder / f"10-reward-gradient-{name}.json" for name in ("race", "long"))
    )
    parts = []
    arrived = {}
    for run in race:
        if run["method"] != "DDPO" and "speedup" in run["metrics"]:
            arrived.setdefault(run["method"], []).append(run["metrics"])
    if arrived:
        heads = ("to where DDPO ends", "CPU s", "DDPO, CPU s", "times as fast", "strict accuracy there, DDPO's",
                 "diversity there, DDPO's")  # fmt: skip
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for method, runs in arrived.items():
            keys = (("seconds_to_goal", 1), ("ddpo_seconds_to_goal", 1), ("speedup", 1))
            cells = [spread([run[key] for run in runs], digits) for key, digits in keys]
            cells += [
                f"{median(run[f'{key}_at_goal'] for run in runs):.3f}, "
                f"{median(run[f'ddpo_{key}_at_goal'] for run in runs):.3f}"
                for key in ("accuracy", "diversity")
            ]
            lines.append(f"| {method}, {len(runs)} seeds | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    else:
        parts.append("*The race has not been recorded in this copy: `python benchmarks/reward_gradient_race.py`.*")
    if long:
        scores = {key: [run["metrics"][key]["after"] for run in long] for key in ("accuracy", "diversity", "kl_nats")}
        before = long[0]["metrics"]
        parts.append(
            f"The recorded long run, {len(long)} seeds: strict accuracy {before['accuracy']['before']:.3f} to "
            f"{spread(scores['accuracy'])}, diversity {before['diversity']['before']:.3f} to "
            f"{spread(scores['diversity'])}, {spread(scores['kl_nats'], 1)} nats from the base."
        )
    else:
        parts.append("*The long run has not been recorded in this copy: `python benchmarks/reward_gradient_long.py`.*")
    return "\n\n".join(parts) + "\n"


CHAPTER = Chapter("10-reward-gradient", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one figure")
    asked = CHAPTER.write_results(parser)
    if asked is None:
        return
    base = load("shapes")
    figures = {
        "10-aim": aim, "10-windows": windows, "10-chain": lambda: chain(base), "10-wishes": lambda: wishes(base),
        "10-hack": lambda: hack(base),
    }  # fmt: skip
    for name, draw in figures.items():
        if asked.only in (None, name):
            CHAPTER.place(draw(), name)


if __name__ == "__main__":
    main()
