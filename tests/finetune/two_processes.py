"""One of several processes that train a random twin by GRPO: writes down what all of them must agree on.

`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 two_processes.py FOLDER COUNT` (plain `python` makes it one). With
a third argument, `shard`, each process holds a part of the weights: what FSDP makes of a model on GPUs.
"""

import sys
from pathlib import Path

import torch

from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig
from pixelpolicy.finetune.loop import whole
from pixelpolicy.finetune.processes import total
from pixelpolicy.generators.image import build
from pixelpolicy.policies import DenoisingPolicy
from pixelpolicy.rewards import jpeg_compressibility
from pixelpolicy.worlds import shapes


def main(folder: Path, count: int, shard: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = build(width=32, layers=1, channels=(8, 8, 8))
    student.vae.requires_grad_(False)
    settings = GRPOConfig(prompts_per_iteration=4, group_size=4, trained_steps=2, minibatches=2, kl_weight=0.5)
    advantages = []

    def spied(rewards, groups):
        from pixelpolicy.rl import group_advantages

        advantages.append(group_advantages(rewards, groups))
        return advantages[-1]

    policy = DenoisingPolicy(student, steps=4, micro_batch=4)
    algorithm = GRPO(policy, jpeg_compressibility(), shapes.draw_prompts, settings, advantages_of=spied)
    if shard:
        from accelerate import PartialState
        from torch.distributed.fsdp import fully_shard

        PartialState(cpu=True)
        fully_shard(student.transformer)
    config = LoopConfig(iterations=3, learning_rate=1e-3, folder=folder / "checkpoints", save_every=1, progress=False)
    loop = Loop(algorithm, config)
    assert loop.accelerator.num_processes == count, f"{loop.accelerator.num_processes} processes, not {count}"
    gradients, step = [], loop.optimizer.step

    def recorded(*args, **kwargs):
        gradients.append([whole(p.grad).clone() for p in loop.parameters])
        return step(*args, **kwargs)

    loop.optimizer.step = recorded
    experience = algorithm.collect(0)[0]  # what each process samples: together the whole batch, nothing twice
    rows = total(torch.tensor([len(experience[0])]))
    history, weights = loop.run(), list(loop.state()["model"].values())
    if loop.accelerator.is_main_process:
        kept = {
            "advantages": advantages, "gradients": gradients, "rows": rows, "own_rows": len(experience[0]),
            "history": [{k: v for k, v in row.items() if "seconds" not in k} for row in history],
            "weights": weights,
            "sharded": sum(p.numel() > p.to_local().numel() for p in loop.parameters) if shard else 0,
        }  # fmt: skip
        torch.save(kept, folder / "kept.pt")
    loop.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["shard"])
