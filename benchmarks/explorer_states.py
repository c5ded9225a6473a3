"""What the reward explorer cannot compute in a browser, recorded: `python benchmarks/explorer_states.py`.

For each run of `RUNS` that is there, and each setting of a grid, it draws 16 seeds of 8 prompts. It writes every
picture's rewards, the strict verdicts, and each prompt's diversity and KL to the base into
`benchmarks/explorer/states.json`. A run more is a line more in `RUNS`. Some two CPU minutes a run on one thread.

Values are 16-bit numbers between the least and the most of their reward, in base64, [rewards, prompts, seeds].
"""

import argparse
import itertools
import time
from base64 import b64encode
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.generators import load
from pixelpolicy.generators.checkpoint import apply_difference
from pixelpolicy.rewards import shapes_strict
from pixelpolicy.widgets.reward_explorer import BASE, PROMPTS, course_rewards, draw, kl
from pixelpolicy.worlds import shapes

# By name, the difference to the base, as seen from benchmarks/; those that are there are recorded.
RUNS = {
    "GRPO": "12-grpo-long/seed-0.safetensors",
    "DDPO": "09-ddpo-long/seed-0.safetensors",
    "DRaFT": "10-reward-gradient-long/seed-0.safetensors",
}
SEEDS = 16
GRID = {"guidance": [1.0, 2.0, 4.0], "steps": [4, 8], "noise": [0.0, 0.7]}
ALPHAS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
FOLDER = "explorer"


def point(generator, base, setting: dict, rewards, texts: list[str], seeds: list[int]) -> tuple[np.ndarray, dict]:
    """Values ``[rewards, prompts, seeds]`` of one setting at one alpha; diversity and KL of each prompt."""
    pictures = draw(generator, texts, seeds, **setting).samples
    values = np.stack([reward(pictures, texts).numpy() for reward in rewards]).reshape(len(rewards), -1, SEEDS)
    verdicts, spread = shapes.verify(pictures.numpy(), texts), []
    for start in range(0, len(texts), SEEDS):
        found = shapes.diversity(verdicts[start : start + SEEDS], texts[start : start + SEEDS])
        spread.append(None if np.isnan(found) else round(found, 4))
    divergence = None
    if setting["noise"]:
        each = kl(generator, base, texts, seeds, **setting).view(-1, SEEDS).mean(1)
        divergence = [round(value, 3) for value in each.tolist()]
    return values, {"diversity": spread, "kl": divergence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="fewer make a quick trial")
    parser.add_argument("--output", type=Path, default=course_root() / "benchmarks" / FOLDER / "states.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    started = time.process_time()

    prompts = list(PROMPTS[: asked.prompts])
    texts = [prompt for prompt in prompts for _ in range(SEEDS)]
    seeds = list(range(SEEDS)) * len(prompts)
    base, rewards = load("shapes"), [*course_rewards(), shapes_strict()]
    names = [reward.name for reward in rewards]
    settings = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    runs = {name: file for name, file in RUNS.items() if (course_root() / "benchmarks" / file).exists()}
    kept, untuned = {}, {}
    for name, file in runs.items():
        path = course_root() / "benchmarks" / file
        for place, alpha in itertools.product(range(len(settings)), ALPHAS):
            # at alpha = 0 every run is the base
            if alpha == 0 and place in untuned:
                kept[name, place, alpha] = untuned[place]
                continue
            tuned = apply_difference(base.reference(), path, alpha)
            kept[name, place, alpha] = point(tuned, base, settings[place], rewards, texts, seeds)
            if alpha == 0:
                untuned[place] = kept[name, place, alpha]
            print(name, settings[place], alpha, *kept[name, place, alpha][0].mean((1, 2)).round(3), flush=True)
    every = np.stack([values for values, _ in kept.values()])
    low, high = every.min((0, 2, 3)), every.max((0, 2, 3))
    span = np.where(high > low, high - low, 1)

    def packed(values: np.ndarray) -> str:
        levels = np.rint((values - low[:, None, None]) / span[:, None, None] * 65535).astype("<u2")
        return b64encode(levels.tobytes()).decode()

    write_json(
        asked.output,
        {
            "generator": "shapes", BASE: "alpha = 0", "runs": runs, "prompts": prompts, "seeds": SEEDS,
            "grid": GRID, "alphas": ALPHAS, "rewards": names,
            "scales": {name: [float(a), float(a + b)] for name, a, b in zip(names, low, span, strict=True)},
            "points": {
                name: [
                    {
                        **setting,
                        "values": [packed(kept[name, place, alpha][0]) for alpha in ALPHAS],
                        **{
                            key: [kept[name, place, alpha][1][key] for alpha in ALPHAS]
                            for key in ("diversity", "kl")
                        },
                    }
                    for place, setting in enumerate(settings)
                ]
                for name in runs
            },
            "cpu_seconds": round(time.process_time() - started, 1), "threads": asked.threads,
            "packages": {name: metadata.version(name) for name in ("torch", "diffusers", "numpy", "pillow")},
            "date": date.today().isoformat(),
        },
    )  # fmt: skip
    print(f"{asked.output}: {asked.output.stat().st_size:,} bytes, {time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
