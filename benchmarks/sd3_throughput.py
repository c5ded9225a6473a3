"""Our rollout and update of Stable Diffusion 3 against a straight loop: `python benchmarks/sd3_throughput.py`.

The straight loop is what one would write with diffusers alone: its pipeline samples, a callback turns each step of its
scheduler into a step of CPS and notes the log-probability; the update calls the transformer with its LoRA, step by
step. Both ways draw the same noise and must give the same trajectories and gradients. The model is a random twin, the
thread is one, repetitions are interleaved. Time is CPU time of the process; memory is the peak of a process each.
`--quick` shows in a minute that it runs; its numbers mean nothing.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import record
from pixelpolicy.finetune import GRPO, GRPOConfig
from pixelpolicy.pipelines import sd3
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.rewards import jpeg_compressibility
from pixelpolicy.rl import Rollout

NAME = "sd3-throughput"
NOISE, CLIP_RANGE, LEARNING_RATE = 0.8, 1e-4, 3e-4
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square", "four yellow circles"]
WAYS = ("ours", "straight")


@dataclass(frozen=True)
class Size:
    """What is timed: a batch of two prompts with as many samples each, some steps, two of them trained."""

    width: int = 256
    layers: int = 4
    picture: int = 256
    tokens: int = 32
    batch: int = 4
    steps: int = 6
    guidance: float = 4.5
    trained: tuple[int, ...] = (1, 3)
    repetitions: int = 20


QUICK = Size(width=64, layers=2, picture=64, batch=2, steps=4, trained=(1, 2), repetitions=2)


class Bench:
    """The two ways on one twin. The weights that a way trains are its own."""

    def __init__(self, size: Size, folder: Path):
        self.size = size
        base = sd3.load(folder, height=size.picture, width=size.picture, device="cpu", max_sequence_length=size.tokens)
        self.prompts = [PROMPTS[2 * i // size.batch] for i in range(size.batch)]
        self.seeds = torch.arange(size.batch)
        self.base, self.student, self.straight = base, base.student(), base.student()
        config = GRPOConfig(
            prompts_per_iteration=2, group_size=size.batch // 2, trained_steps=len(size.trained), minibatches=1,
            clip_range=CLIP_RANGE, kl_weight=0.0,
        )  # fmt: skip
        policy = DenoisingPolicy(
            self.student, partial(cps, noise=NOISE), size.steps, None, size.guidance, micro_batch=size.batch
        )
        self.algorithm = GRPO(policy, jpeg_compressibility(), lambda count, rng: self.prompts[:count], config)
        self.advantages = torch.linspace(-1, 1, size.batch)
        self.optimizers = {
            way: torch.optim.AdamW([p for p in g.transformer.parameters() if p.requires_grad], LEARNING_RATE)
            for way, g in (("ours", self.student), ("straight", self.straight))
        }

    # Ours ----------------------------------------------------------------------------------------------------

    def ours_rollout(self) -> Rollout:
        return self.algorithm.policy.rollout(self.prompts, seeds=self.seeds)

    def ours_update(self, rollout: Rollout) -> None:
        experience = rollout, self.advantages, list(self.size.trained)
        for losses in self.algorithm.minibatches(experience, 0):
            for loss in losses:
                (loss()[0] / len(losses)).backward()
            self._step("ours")

    # Straight ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def straight_rollout(self, embeddings: dict | None = None) -> Rollout:
        """With ``embeddings`` the pipeline is spared its text encoders."""
        size, pipeline = self.size, self.base.pipeline
        pipeline.transformer = self.straight.transformer
        streams = [torch.Generator().manual_seed(int(seed)) for seed in self.seeds]
        shape = (16, size.picture // 8, size.picture // 8)

        def draw():
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams])

        latents = draw()
        states, log_probs = [latents], []

        def noisy_step(pipe, i, t, tensors):
            sigma, following = pipe.scheduler.sigmas[i], pipe.scheduler.sigmas[i + 1]
            if following == 0:
                states.append(tensors["latents"])
                return tensors
            velocity = (tensors["latents"] - states[-1]) / (following - sigma)
            mean, std = straight_cps(states[-1], velocity, sigma, following)
            states.append(mean + std * draw())
            log_probs.append(straight_log_prob(states[-1], mean, std))
            return {"latents": states[-1]}

        given = embeddings or {"prompt": self.prompts}
        pictures = pipeline(
            **given, latents=latents, num_inference_steps=size.steps, guidance_scale=size.guidance, height=size.picture,
            width=size.picture, max_sequence_length=size.tokens, callback_on_step_end=noisy_step, output_type="pt",
        ).images  # fmt: skip
        pipeline.transformer = self.base.transformer
        return Rollout(
            self.prompts, self.seeds, torch.stack(states, 1), pipeline.scheduler.sigmas.clone(),
            torch.tensor([True] * (size.steps - 1) + [False]),
            torch.stack([*log_probs, torch.full((size.batch,), float("nan"))], 1), 2 * pictures - 1,
        )  # fmt: skip

    def straight_update(self, rollout: Rollout) -> None:
        size = self.size
        embeds, pooled = self.straight.encode([""] * size.batch + self.prompts)
        for step in size.trained:
            x, (sigma, following) = rollout.states[:, step], rollout.sigmas[step : step + 2]
            velocity = self.straight.transformer(
                hidden_states=torch.cat([x, x]), timestep=(sigma * 1000).expand(2 * size.batch),
                encoder_hidden_states=embeds, pooled_projections=pooled, return_dict=False,
            )[0]  # fmt: skip
            empty, full = velocity.chunk(2)
            mean, std = straight_cps(x, empty + size.guidance * (full - empty), sigma, following)
            log_prob = straight_log_prob(rollout.states[:, step + 1], mean, std)
            ratio = torch.exp(log_prob - rollout.log_probs[:, step])
            clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
            loss = torch.maximum(-self.advantages * ratio, -self.advantages * clipped).mean()
            (loss / len(size.trained)).backward()
        self._step("straight")

    def _step(self, way: str) -> None:
        optimizer = self.optimizers[way]
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    # Both ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Both ways must do the same work: equal trajectories, pictures, and weights after two updates."""
        ours, straight = self.ours_rollout(), self.straight_rollout()
        for name in ("states", "samples", "sigmas"):
            torch.testing.assert_close(getattr(ours, name), getattr(straight, name), rtol=0, atol=2e-3)
        torch.testing.assert_close(ours.log_probs[:, :-1], straight.log_probs[:, :-1], rtol=0, atol=1e-4)
        for _ in range(2):
            self.ours_update(ours)
            self.straight_update(ours)
        weights = [self.optimizers[way].param_groups[0]["params"] for way in WAYS]
        for mine, other in zip(*weights, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=LEARNING_RATE / 100)


def straight_cps(x, velocity, sigma, following):
    picture, noise = x - sigma * velocity, x + (1 - sigma) * velocity
    angle = NOISE * math.pi / 2
    return (1 - following) * picture + following * math.cos(angle) * noise, following * math.sin(angle)


def straight_log_prob(x, mean, std):
    terms = -((x - mean) ** 2) / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return terms.mean(dim=(1, 2, 3))


def timed(function) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(ours, straight, repetitions: int) -> dict[str, float]:
    """How many times as fast ours is, from interleaved pairs; the one that begins changes with each.

    ``ratio`` is the median over the pairs; ``best_ratio`` sets the quickest repetitions against each other, which
    what else goes on in the machine disturbs least.
    """
    ratios, walls, seconds = [], [], {"ours": [], "straight": []}
    for repetition in range(repetitions + 1):
        pair = {}
        for way in WAYS if repetition % 2 else WAYS[::-1]:
            pair[way] = timed(ours if way == "ours" else straight)
        if repetition:  # the first pair warms up
            ratios.append(pair["straight"][0] / pair["ours"][0])
            walls.append(pair["straight"][1] / pair["ours"][1])
            for way in WAYS:
                seconds[way].append(pair[way][0])
    return {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "best_ratio": min(seconds["straight"]) / min(seconds["ours"]),
        "wall_ratio": statistics.median(walls),
        **{f"{way}_cpu_seconds": statistics.median(values) for way, values in seconds.items()},
    }


def status_mb(field: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(f"{field}:")).split()[1]) / 1024


def memory(bench: Bench, way: str) -> dict[str, float]:
    """Peak of this process over three rollouts and updates, and how much of it came after loading, in MiB."""
    held = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew from here
    for _ in range(3):
        rollout = getattr(bench, f"{way}_rollout")()
        getattr(bench, f"{way}_update")(rollout)
    return {"peak_mb": status_mb("VmHWM"), "grown_mb": status_mb("VmHWM") - held}


def memory_of_processes(folder: Path, quick: bool) -> dict[str, float]:
    """Peaks of both ways, each in three processes of its own, and their ratio; the medians."""
    found = {way: [] for way in WAYS}
    for way in WAYS * (1 if quick else 3):
        command = [sys.executable, __file__, "--memory-of", way, "--twin", str(folder), *["--quick"] * quick]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {
        f"{way}_{key}": statistics.median(run[key] for run in runs)
        for way, runs in found.items()
        for key in ("peak_mb", "grown_mb")
    }
    return medians | {key: medians[f"ours_{key}_mb"] / medians[f"straight_{key}_mb"] for key in ("peak", "grown")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="where the record goes; with --quick nowhere unless given")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--twin", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if asked.quick else Size()
    if asked.memory_of:
        print(json.dumps(memory(Bench(size, asked.twin), asked.memory_of)))
        return
    cpu, wall = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = sd3.twin(Path(scratch) / "twin", width=size.width, layers=size.layers, picture=size.picture)
        bench = Bench(size, folder)
        bench.check()
        embeds, pooled = bench.base.encode(["", *bench.prompts])
        names = ("prompt_embeds", "pooled_prompt_embeds")
        given = {name: part[1:] for name, part in zip(names, (embeds, pooled), strict=True)}
        given |= {f"negative_{name}": part[:1].expand_as(part[1:]) for name, part in
                  zip(names, (embeds, pooled), strict=True)}  # fmt: skip
        rollout = bench.ours_rollout()
        pairs = {
            "rollout": (bench.ours_rollout, bench.straight_rollout),
            "rollout_embeddings_given": (bench.ours_rollout, lambda: bench.straight_rollout(given)),
            "update": (lambda: bench.ours_update(rollout), lambda: bench.straight_update(rollout)),
        }
        metrics = {name: compare(*pair, size.repetitions) for name, pair in pairs.items()}
        metrics["memory"] = memory_of_processes(folder, asked.quick)
    numbers = {key: value for key, value in vars(size).items() if not isinstance(value, tuple)}
    entry = record(
        NAME,
        metrics | {"settings": numbers | {"trained_steps": len(size.trained)}},
        seed=0,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        source=__file__,
    )
    for name in pairs:
        print(
            f"{name}: {metrics[name]['ratio']:.3f}x ({metrics[name]['lowest']:.3f} to {metrics[name]['highest']:.3f}), "
            f"quickest against quickest {metrics[name]['best_ratio']:.3f}x"
        )
    print(f"memory: {metrics['memory']['peak']:.3f}x of the peak, {metrics['memory']['grown']:.3f}x of what it grew by")
    path = asked.out or (None if asked.quick else course_root() / "benchmarks" / f"{NAME}.json")
    if path:
        write_json(path, [entry])


if __name__ == "__main__":
    main()
