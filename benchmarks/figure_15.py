"""Chapter 15's figures and its tables of results: `python benchmarks/figure_15.py`, after the lab was recorded.

Nothing is trained here: the figures are of the world and its rewards.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, `--check` writes
nothing and fails where the results differ.
"""

import argparse

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.figure import Figure

from pixelpolicy import viz
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.rewards import physics
from pixelpolicy.viz.figures import picture
from pixelpolicy.worlds import bounce

PROMPT = "a red disc thrown left"


def clips() -> dict[str, torch.Tensor]:
    """A throw, a ball that hangs and is elsewhere in one frame, and the empty stage."""
    scene = bounce.scene(PROMPT, np.random.default_rng(3))
    frozen = dict(scene, track=np.array([[17.0, 9.0]] * 4 + [[7.0, 9.0]] * 4))
    empty = dict(scene, visible=np.zeros(bounce.FRAMES))
    drawn = bounce.draw([scene, frozen, empty])
    return dict(zip(("a throw", "frozen, then elsewhere", "nothing at all"), torch.from_numpy(drawn), strict=True))


def rewards() -> viz.Picture:
    judges = [physics.smoothness(), physics.presence(), physics.heading(), physics.newton()]
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    said = []
    for axis, (name, clip) in zip(figure.subplots(3, 1), clips().items(), strict=True):
        values = {judge.name: judge(clip[None], [PROMPT]).item() for judge in judges}
        strip = torch.cat(list(clip), dim=-1).permute(1, 2, 0).numpy()
        axis.imshow((strip + 1) / 2, interpolation="nearest")
        for edge in range(1, bounce.FRAMES):
            axis.axvline(edge * bounce.SIZE - 0.5, color="white", linewidth=0.8)
        axis.axis("off")
        marks = "   ".join(f"{key} {value:.2f}" for key, value in values.items())
        axis.set_title(f"{name}:   {marks}", fontsize=9)
        said.append(f"{name} gets {', '.join(f'{key} {value:.2f}' for key, value in values.items())}")
    alt = f"Three clips as strips of eight frames, all for '{PROMPT}': " + "; ".join(said) + "."
    return picture(figure, alt=alt)


def tracks() -> viz.Picture:
    """Heights of centres, and the residual, of a throw and of flawed clips."""
    figure, (left, right) = axes(2)
    rng, time = np.random.default_rng(5), np.arange(bounce.FRAMES)
    found = {}
    for flaw in (None, "gravity", "jitter"):
        scenes = [bounce.scene(PROMPT, rng, flaw=flaw) for _ in range(200)]
        seen = torch.from_numpy(bounce.draw(scenes))
        track = physics.centres(physics.cover(seen))
        free = physics.in_flight(track, physics.lowest([PROMPT] * 200))
        found[flaw or "clean"] = physics.newton_residual(track, free).numpy()
        left.plot(time, 24 - track[0, :, 1].numpy(), marker="o", label=flaw or "clean")
    left.set_xlabel("frame")
    left.set_ylabel("height of the centre, pixels")
    left.legend(fontsize=8)
    right.boxplot(list(found.values()), tick_labels=list(found), showfliers=False)
    right.set_yscale("log")
    right.set_ylabel("Newton's residual")
    medians = ", ".join(f"{np.median(values):.2f} for {name}" for name, values in found.items())
    alt = (
        "Left: height against frame of three clips. The clean one falls in a parabola and bounces; with weak gravity "
        f"it falls too slowly; with jitter it zigzags. Right: Newton's residual of 200 clips each, medians {medians}."
    )
    return picture(figure, alt=alt)


def results() -> str:
    """The card of the base, which was measured after reloading; then what the lab's methods reached."""
    card = (ROOT / "src/pixelpolicy/checkpoints/bounce/README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("|")]
    seeds = [record["metrics"] for record in read_benchmark(ROOT / "benchmarks" / "15-video.json")]
    before = {key: spread([made[key]["before"] for made in seeds]) for key in ("accuracy", "diversity")}
    rows += [
        "",
        "| lab 15, same prompts and seeds | accuracy | diversity | as a share of the base's |",
        "|---|---|---|---|",
    ]
    rows += [f"| the untouched base | {before['accuracy']} | {before['diversity']} | 1 |"]
    for name in seeds[0]["methods"]:
        accuracy, diversity = (spread([made[key][name] for made in seeds]) for key in ("methods", "diversities"))
        share = spread([made["diversities"][name] / made["diversity"]["before"] for made in seeds], 2)
        rows.append(f"| {name} | {accuracy} | {diversity} | {share} |")
    rows += [
        f"| *the base, best of {n}* | *{spread([made['best_of_n'][n] for made in seeds])}* | | |" for n in ("4", "12")
    ]
    return "\n".join(rows)


CHAPTER = Chapter("15-video", results)

if __name__ == "__main__":
    if CHAPTER.write_results(argparse.ArgumentParser(description=__doc__.splitlines()[0])):
        CHAPTER.place(rewards(), "15-rewards")
        CHAPTER.place(tracks(), "15-tracks")
