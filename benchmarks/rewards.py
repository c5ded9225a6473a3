"""What the rewards are worth on true pictures: `python benchmarks/rewards.py` (minutes), three seeds.

Verifier and reading on pictures drawn as asked; image-text on held-out concepts of a held-out vendor, one split a seed,
fitted anew each time. The last needs npm and `pip install ".[rewards]"`. Leaves `benchmarks/rewards.json`.
"""

import argparse
import time

import numpy as np
import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import read_benchmark, record, timer
from pixelpolicy.rewards import (
    held_out_emoji,
    image_text_alignment,
    second_text_rendering,
    shapes_dense,
    shapes_strict,
    text_rendering,
)
from pixelpolicy.rewards.emoji import collect
from pixelpolicy.rewards.image_text_fit import across, see
from pixelpolicy.worlds import shapes, words

PICTURES = 512


def milliseconds(reward, pictures, prompts) -> tuple[torch.Tensor, float]:
    """A reward's values, and CPU milliseconds a picture once it is warm."""
    reward(pictures[:2], prompts[:2])
    started = time.process_time()
    with torch.no_grad():
        values = reward(pictures, prompts)
    return values, (time.process_time() - started) * 1000 / len(prompts)


def judged(seed: int) -> dict:
    """Verifier and both readers on clean pictures, and their cost."""
    rng, metrics = np.random.default_rng(seed), {}
    asked = shapes.draw_prompts(PICTURES, rng)
    drawn = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in asked]))
    strict, metrics["verifier_ms"] = milliseconds(shapes_strict(), drawn, asked)
    metrics["verifier_accepts"] = strict.mean().item()
    metrics["verifier_dense"] = shapes_dense()(drawn, asked).mean().item()

    texts = words.draw_prompts(PICTURES, rng)
    print_ = torch.from_numpy(words.draw(texts, rng))
    for name, reward in (("reader", text_rendering()), ("second_reader", second_text_rendering())):
        scores, metrics[f"{name}_ms"] = milliseconds(reward, print_, texts)
        metrics[f"{name}_exact"] = (scores == 1).float().mean().item()
        metrics[f"{name}_reward"] = scores.mean().item()
    every = list(words.prompts())
    print_ = torch.from_numpy(words.draw(every, rng))
    metrics["reader_reward_of_wrong_words"] = text_rendering()(print_, every[1:] + every[:1]).mean().item()

    emoji = held_out_emoji()
    pictures, captions = emoji.pictures["noto"], list(emoji.captions)
    metrics["image_text_ms"] = milliseconds(image_text_alignment("fluent"), pictures, captions)[1]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    seen, entries = see(collect()), []
    for seed in range(asked.seeds):
        with timer() as clock:
            metrics = judged(seed) | {"image_text": across(seen, seed)}
        entries.append(
            record(
                "rewards", metrics, seed=seed, seconds=clock.seconds, cpu_seconds=clock.cpu_seconds, samples=PICTURES,
                source=__file__,
            )
        )  # fmt: skip
    path = course_root() / "benchmarks" / "rewards.json"
    write_json(path, entries)
    for entry in read_benchmark(path):
        show(entry["seed"], entry["metrics"])


def show(seed: int, metrics: dict, indent: str = "") -> None:
    print(f"{indent}{seed}")
    for name, value in metrics.items():
        if isinstance(value, dict):
            show(name, value, indent + "  ")
        else:
            print(f"{indent}  {name:32} {value:.4f}")


if __name__ == "__main__":
    main()
