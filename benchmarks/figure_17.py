"""Chapter 17's figures and its results: `python benchmarks/figure_17.py` (a minute of training in it).

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, `--check` writes
nothing and fails where they are not those of the records, `--only NAME` draws one figure.
"""

import argparse

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread

from pixelpolicy import viz
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import DiffusionNFT, ForwardProcessConfig, Loop, LoopConfig
from pixelpolicy.generators import load
from pixelpolicy.generators.flow import FlowGenerator
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rewards import gait
from pixelpolicy.worlds import walker

TEXTS = ["walk slowly to the right", "run quickly to the right", "walk quickly to the left"]


def rows(samples: np.ndarray) -> list[viz.Boxes]:
    return [viz.Boxes(**walker.shown(sample)) for sample in samples]


def moonwalk(base: FlowGenerator) -> viz.Picture:
    """A motion of the base that the verifier accepts, the same noise after training for smoothness, and a true one."""
    text = TEXTS[0]
    seeds = list(range(40))
    before = base.generate([text] * 40, seeds)
    judged = walker.verify(before.numpy(), [text] * 40)
    swings = [verdict.swing if verdict.strict else 0.0 for verdict in judged]
    chosen = int(np.argmax(swings))
    student = base.student()
    reward = 0.8 * gait.smooth() + 0.2 * gait.advance()
    config = ForwardProcessConfig(prompts_per_iteration=16, group_size=12, kl_weight=0.0)
    policy = DenoisingPolicy(student, ode, steps=6, micro_batch=192)
    loop = Loop(DiffusionNFT(policy, reward, walker.draw_prompts, config), LoopConfig(40, 2e-3, name="figure"))
    loop.run()
    with loop.averaged_weights():
        after = student.generate([text], seeds[chosen : chosen + 1])
    true = torch.from_numpy(walker.draw([text], np.random.default_rng(1)))
    shown = torch.cat([true, before[chosen : chosen + 1], after])
    verdicts = walker.verify(shown.numpy(), [text] * 3)
    passed = ", ".join(f"{verdict.swing:.2f}" for verdict in verdicts)
    return viz.strip(
        rows(shown.numpy()),
        [f"{text}: drawn by the world", "a motion of the base", "the same noise, trained for smoothness and progress"],
        accepted=[verdict.strict for verdict in verdicts],
        alt="Three strips of eight frames, a body of six boxes that walks to the right: drawn by the world, of the "
        "base, and trained for smoothness. From the first strip to the last the feet pass each other by "
        f"{passed} metres.",
    )


def skating(base: FlowGenerator) -> viz.Picture:
    """Shares of motions within a threshold of foot-skate."""
    texts, seeds = walker.evaluation_pairs("validation", 64)
    drawn = base.generate(texts, seeds).numpy()
    clean = walker.draw(texts, np.random.default_rng(0))
    levels, (figure, panels) = np.linspace(0, 0.2, 81), axes(1, 6.0)
    told = []
    for name, samples, style in (("clean", clean, "--"), ("base", drawn, "-")):
        slides = walker.skate(walker.feet(walker.bodies(samples)))
        panels[0].plot(levels, [(slides <= level).mean() for level in levels], style, label=name,
                       color="#009E73" if name == "clean" else viz.COLOURS["base"])  # fmt: skip
        told.append(f"of the {name} motions {(slides <= 0.01).mean():.2f} pass at 1 cm and "
                    f"{(slides <= walker.MOST_SKATE).mean():.2f} at {100 * walker.MOST_SKATE:.0f} cm")  # fmt: skip
    panels[0].axvline(walker.MOST_SKATE, color="#555555", linewidth=1, linestyle=":")
    panels[0].set(xlabel="largest slide allowed, metres a frame", ylabel="share that passes", ylim=(0, 1.03))
    panels[0].legend(frameon=False)
    return viz.picture(figure, alt=f"The share of motions within a threshold of foot-skate: {'; '.join(told)}.")


# The results -------------------------------------------------------------------------------------------------------


def results() -> str:
    """What recorded runs of the lab reached: medians over seeds, in brackets the lowest and the highest."""
    path = ROOT / "benchmarks" / "17-four-d.json"
    runs = [run["metrics"] for run in (read_benchmark(path) if path.exists() else [])]
    if not runs:
        return "*The lab has not been recorded in this copy: `pixelpolicy run 17`.*\n"
    lines = ["| | base | after training | clean |", "|---|---|---|---|"]
    rows = {"accuracy": "accuracy", "grounded": "lower foot on the ground", "skate": "foot-skate, m a frame"}
    for key, name in (rows | {"swing": "swing of the legs, m", "diversity": "diversity"}).items():
        cells = [spread([run[key][when] for run in runs]) for when in ("before", "after", "clean")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for count in ("1", "4", "12"):
        lines.append(f"| *base, best of {count}* | *{spread([run['best_of_n'][count] for run in runs])}* | | |")
    seconds = spread([run["training_cpu_seconds"] for run in runs], 0)
    glide = {key: spread([run["moonwalk"][key] for run in runs]) for key in ("accuracy", "swing", "skate", "grounded")}
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds"
    return (
        "\n".join(lines) + f"\n\nLab 17, {seeds}: {seconds} CPU seconds of training close "
        f"{spread([run['gap_closed'] for run in runs], 2)} of the gap between the base and clean motions. Trained for "
        f"smoothness and progress instead, the base ends at a swing of {glide['swing']} m, an accuracy of "
        f"{glide['accuracy']} and a foot-skate of {glide['skate']} m, with the lower foot on the ground in a share of "
        f"{glide['grounded']} of the motions.\n"
    )


CHAPTER = Chapter("17-four-d", results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one figure")
    asked = CHAPTER.write_results(parser)
    if asked is None:
        return
    base = load("walker")
    for name, draw in {"17-moonwalk": moonwalk, "17-skating": skating}.items():
        if asked.only in (None, name):
            CHAPTER.place(draw(base), name)


if __name__ == "__main__":
    main()
