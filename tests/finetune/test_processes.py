"""Several processes train as one, and a killed training ends as if it had not been killed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig
from pixelpolicy.policies import DenoisingPolicy
from pixelpolicy.rewards import jpeg_compressibility
from pixelpolicy.worlds import shapes

WORKER = Path(__file__).with_name("two_processes.py")


def trained(folder, count, *words):
    """What the worker writes down, run by ``count`` processes; it goes on where ``folder`` holds a checkpoint."""
    folder.mkdir(exist_ok=True)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(WORKER), str(folder), str(count), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "kept.pt", weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one") / "run", 1)


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["shard"]], ids=["whole weights", "sharded weights"])
def test_two_processes_train_as_one(alone, tmp_path, words):
    two = trained(tmp_path / "run", 2, *words)
    assert alone["own_rows"] == 16 and two["own_rows"] == 8 and two["rows"] == 16
    assert (two["sharded"] > 10) == bool(words)
    assert len(two["advantages"]) == 4 and len(two["gradients"]) == 6
    assert all(advantages.abs().max() > 0.5 for advantages in two["advantages"])
    torch.testing.assert_close(two["advantages"], alone["advantages"], rtol=0, atol=1e-6)
    assert all(max(g.abs().max() for g in step) > 1e-3 for step in alone["gradients"])
    torch.testing.assert_close(two["gradients"], alone["gradients"], rtol=0, atol=1e-6)
    torch.testing.assert_close(two["weights"], alone["weights"], rtol=0, atol=1e-5)
    for one, both in zip(alone["history"], two["history"], strict=True):
        assert both == pytest.approx(one, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_shards_are_saved_whole_and_go_on_to_the_bit(tmp_path):
    first = trained(tmp_path / "run", 2, "shard")
    checkpoints = tmp_path / "run" / "checkpoints"
    state = torch.load(checkpoints / "checkpoint-000002" / "state.pt", weights_only=True)
    moments = state["optimizer"]["state"].values()
    assert [m["exp_avg"].shape for m in moments] == [w.shape for w in state["model"].values()]
    shutil.rmtree(checkpoints / "checkpoint-000003")
    again = trained(tmp_path / "run", 2, "shard")
    assert len(again["gradients"]) == 2 and len(first["gradients"]) == 6
    assert all(torch.equal(a, b) for a, b in zip(again["weights"], first["weights"], strict=True))


def test_a_batch_that_cannot_be_shared_is_refused(make_twin, monkeypatch):
    monkeypatch.setattr("pixelpolicy.finetune.batch.place", lambda: (1, 2))
    settings = GRPOConfig(prompts_per_iteration=3, group_size=2, minibatches=1)
    algorithm = GRPO(DenoisingPolicy(make_twin(), micro_batch=2), jpeg_compressibility(), shapes.draw_prompts, settings)
    with pytest.raises(TrainingError, match="3 micro-batches of 2 .* 2 processes.*Change micro_batch"):
        algorithm.collect(0)


# Killed by SIGKILL ---------------------------------------------------------------------------------------------------

ITERATIONS, KILLS = 8, 5
RUNS = ("whole", "killed")


def train(folder, make_twin, kill_at):
    """Train to the end and save the weights, or be killed at the ``kill_at``-th optimiser step or save."""
    torch.set_num_threads(1)
    settings = GRPOConfig(prompts_per_iteration=2, group_size=3, trained_steps=2, minibatches=2, kl_weight=0.1)
    policy = DenoisingPolicy(make_twin(), steps=3, micro_batch=3)
    algorithm = GRPO(policy, jpeg_compressibility(), shapes.draw_prompts, settings)
    loop = Loop(algorithm, LoopConfig(ITERATIONS, 1e-3, folder=folder, save_every=1, progress=False))
    events = 0

    def deadly(function):
        def called(*args, **kwargs):
            nonlocal events
            events += 1
            if events == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return called

    loop.optimizer.step, os.replace = deadly(loop.optimizer.step), deadly(os.replace)
    loop.run()
    with loop.averaged_weights():
        averaged = [p.detach().clone() for p in loop.parameters]
    torch.save([*loop.state()["model"].values(), *averaged], folder.with_suffix(".pt"))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork processes")
def test_killed_at_random_and_resumed_it_ends_with_the_same_bits(tmp_path, make_twin):
    """Five kills, at optimiser steps and between a checkpoint's writing and its renaming, in one training."""
    import diffusers.training_utils  # noqa: F401  # imported once, before the forks

    context = multiprocessing.get_context("fork")

    def run(folder, kill_at=None):
        process = context.Process(target=train, args=(folder, make_twin, kill_at))
        process.start()
        process.join(300)
        return process.exitcode

    assert run(tmp_path / "whole") == 0
    draw, codes = random.Random(0), []
    for _ in range(KILLS):
        codes.append(run(tmp_path / "killed", draw.randint(1, 5)))
    assert codes == [-signal.SIGKILL] * KILLS
    assert run(tmp_path / "killed") == 0
    history = [json.loads((tmp_path / run / "checkpoint-000008" / "history.json").read_text()) for run in RUNS]
    assert [row["iteration"] for row in history[1]] == list(range(1, ITERATIONS + 1))
    whole, killed = (torch.load(tmp_path / f"{run}.pt", weights_only=True) for run in RUNS)
    assert len(whole) > 20 and all(torch.equal(a, b) for a, b in zip(whole, killed, strict=True))


# Ready configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one-gpu", "several-gpus", "several-machines-fsdp"])
def test_ready_configurations_are_what_accelerate_reads(root, name):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    path = root / "configs" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    given = yaml.safe_load(path.read_text())
    assert all(getattr(config, key) == value for key, value in given.items() if key != "distributed_type")
    assert config.distributed_type.value == given["distributed_type"]
    known = {action.dest for action in launch_command_parser()._actions}
    assert set(given.get("fsdp_config", {})) <= known
