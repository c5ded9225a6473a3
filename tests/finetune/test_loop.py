"""The training loop on an algorithm small enough to follow by hand: a line fitted to noisy points."""

import copy
import errno
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixelpolicy.errors import CheckpointError, TrainingError
from pixelpolicy.finetune import Loop, LoopConfig

TRUTH = torch.tensor([1.0, -2.0, 0.5])


class Line:
    """Least squares: each iteration draws points of its own, and takes ``updates`` steps of ``parts`` losses each."""

    def __init__(self, updates=2, parts=3, points=8):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        self.updates, self.parts, self.points, self.collected = updates, parts, points, []

    def collect(self, iteration):
        self.collected.append(iteration)
        stream = torch.Generator().manual_seed(iteration)
        x = torch.randn(self.updates, self.parts, self.points, 3, generator=stream)
        y = x @ TRUTH + 0.01 * torch.randn(x.shape[:-1], generator=stream)
        return (x, y), {"reward": float(y.mean())}

    def minibatches(self, experience, iteration):
        for x, y in zip(*experience, strict=True):
            yield [self.loss(*part) for part in zip(x, y, strict=True)]

    def loss(self, x, y):
        def value():
            error = (self.model(x)[..., 0] - y).square().mean()
            return error, {"error": error.item()}

        return value


def config(**settings):
    return LoopConfig(**{"iterations": 8, "learning_rate": 1e-2, "progress": False, **settings})


def weights(loop):
    return copy.deepcopy(loop.algorithm.model.state_dict())


def same(a, b):
    """Equal to the bit, through all containers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Training ---------------------------------------------------------------------------------------------------------


def test_it_trains_and_reports_every_iteration():
    algorithm = Line()
    loop = Loop(algorithm, config(iterations=150, learning_rate=3e-2))
    history = loop.run()
    assert history[0]["error"] > 1 and history[-1]["error"] < 5e-3
    probe = torch.randn(50, 3, generator=torch.Generator().manual_seed(99))
    torch.testing.assert_close(algorithm.model(probe)[:, 0], probe @ TRUTH, rtol=0, atol=0.1)
    assert algorithm.collected == list(range(150))
    assert [row["iteration"] for row in history] == list(range(1, 151)) and history is loop.history
    first = history[0]
    assert {"iteration", "reward", "loss", "error", "grad_norm", "seconds", "cpu_seconds"} <= first.keys()
    assert first["reward"] == Line().collect(0)[1]["reward"]
    assert first["loss"] == pytest.approx(first["error"]) and 0 < first["cpu_seconds"] < 10


@pytest.mark.parametrize("parts", [1, 4])
def test_losses_of_one_step_accumulate_to_the_gradient_of_one_big_batch(parts):
    algorithm = Line(updates=1, parts=parts)
    (x, y), _ = algorithm.collect(0)
    twin = copy.deepcopy(algorithm.model)
    (twin(x.reshape(-1, 3))[:, 0] - y.reshape(-1)).square().mean().backward()
    expected = [p.grad for p in twin.parameters()]
    loop = Loop(algorithm, config(max_grad_norm=1e9))
    metrics = loop.iterate()
    for given, wanted in zip(algorithm.model.parameters(), expected, strict=True):
        torch.testing.assert_close(given.grad, wanted, rtol=1e-6, atol=1e-6)
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    # And the gradients of one step do not leak into the next.
    before = copy.deepcopy(algorithm.model)
    (x, y), _ = algorithm.collect(1)
    loop.iterate()
    before.zero_grad()
    (before(x.reshape(-1, 3))[:, 0] - y.reshape(-1)).square().mean().backward()
    for given, wanted in zip(algorithm.model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(given.grad, wanted.grad, rtol=1e-6, atol=1e-6)


def test_each_update_is_adams_with_the_gradient_clipped():
    algorithm, settings = Line(updates=3, parts=2), {"learning_rate": 0.05, "max_grad_norm": 0.7}
    twin = copy.deepcopy(algorithm.model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05, betas=(0.9, 0.999))
    (x, y), _ = algorithm.collect(0)
    for part_x, part_y in zip(x, y, strict=True):
        optimizer.zero_grad()
        (twin(part_x.reshape(-1, 3))[:, 0] - part_y.reshape(-1)).square().mean().backward()
        norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
        assert norm > 0.7
        for p in twin.parameters():
            p.grad *= 0.7 / norm
        optimizer.step()
    Loop(algorithm, config(**settings)).iterate()
    for given, wanted in zip(algorithm.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "ramps, shares",
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"warmup_iterations": 3}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"cooldown_iterations": 3}, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ({"warmup_iterations": 1, "cooldown_iterations": 1}, [0.5, 1, 1, 1, 1, 1, 1, 0.5]),
    ],
)
def test_the_learning_rate_warms_up_and_cools_down_in_equal_steps(ramps, shares):
    loop, rates = Loop(Line(), config(learning_rate=0.04, **ramps)), []
    loop.run([lambda loop, metrics: rates.append(loop.optimizer.param_groups[0]["lr"])])
    assert rates == pytest.approx([0.04 * share for share in shares])


def test_what_needs_no_gradient_is_not_trained():
    algorithm = Line()
    algorithm.model[0].requires_grad_(False)
    before = weights(Loop(algorithm, config()))
    loop = Loop(algorithm, config())
    loop.run()
    assert torch.equal(before["0.weight"], weights(loop)["0.weight"])
    assert not torch.equal(before["1.weight"], weights(loop)["1.weight"])


def test_callbacks_see_the_loop_and_may_add_to_the_metrics():
    seen = []

    def note(loop, metrics):
        seen.append((loop.iteration, metrics["iteration"], len(loop.history)))
        metrics["accuracy"] = 0.5

    history = Loop(Line(), config(iterations=3)).run([note])
    assert seen == [(1, 1, 0), (2, 2, 1), (3, 3, 2)]
    assert [row["accuracy"] for row in history] == [0.5] * 3


# Averaged weights -------------------------------------------------------------------------------------------------


def test_averaged_weights_are_the_moving_average_and_only_within_the_context():
    algorithm, visited = Line(updates=1), []
    start = [p.detach().clone() for p in algorithm.model.parameters()]
    loop = Loop(algorithm, config(iterations=10, ema_decay=0.9))
    loop.run([lambda loop, _: visited.append([p.detach().clone() for p in loop.algorithm.model.parameters()])])
    average = start
    for step, now in enumerate(visited):
        decay = 0.9 if step else 0.0  # the average begins at the first update
        average = [decay * a + (1 - decay) * n for a, n in zip(average, now, strict=True)]
    trained = weights(loop)
    with loop.averaged_weights() as model:
        assert model is algorithm.model
        for given, wanted in zip(model.parameters(), average, strict=True):
            torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)
        assert not same(weights(loop), trained)
    assert same(weights(loop), trained)
    with pytest.raises(KeyError), loop.averaged_weights():
        raise KeyError("an evaluation that fails")
    assert same(weights(loop), trained)


def test_looking_at_the_average_does_not_change_the_training():
    def look(loop, metrics):
        with loop.averaged_weights():
            pass

    plain, watched = Loop(Line(), config()), Loop(Line(), config())
    assert without_clock(plain.run()) == without_clock(watched.run([look]))
    assert same(weights(plain), weights(watched))


# Checkpoints ------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def interrupt(at):
    def callback(loop, metrics):
        if loop.iteration == at:
            raise Interrupted

    return callback


def test_the_last_two_checkpoints_are_kept(tmp_path):
    Loop(Line(), config(iterations=7, folder=tmp_path / "run", save_every=2)).run()
    assert names(tmp_path / "run") == ["checkpoint-000006", "checkpoint-000007"]
    Loop(Line(), config(iterations=4, save_every=2)).run()
    assert names(tmp_path) == ["run"]  # without a folder nothing is written


@pytest.mark.parametrize("at", [1, 3, 4, 6, 10])
def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path, at):
    """Interrupted before the first save, between saves, on one, and at the last iteration."""
    settings = {"iterations": 10, "save_every": 3, "warmup_iterations": 2, "cooldown_iterations": 4, "ema_decay": 0.7}
    whole = Loop(Line(), config(**settings))
    whole.run()
    with pytest.raises(Interrupted):
        Loop(Line(), config(folder=tmp_path, **settings)).run([interrupt(at)])
    resumed = Loop(Line(), config(folder=tmp_path, **settings))
    saved = 3 * ((at - 1) // 3)
    assert resumed.iteration == saved == len(resumed.history)
    resumed.run()
    assert resumed.algorithm.collected == list(range(saved, 10))
    assert same(weights(resumed), weights(whole))
    assert same(resumed.ema.state_dict(), whole.ema.state_dict())
    assert same(resumed.optimizer.state_dict(), whole.optimizer.state_dict())
    assert without_clock(resumed.history) == without_clock(whole.history)


def test_a_finished_training_is_not_repeated_and_can_be_prolonged(tmp_path):
    whole = Loop(Line(), config(iterations=9)).run()
    Loop(Line(), config(iterations=6, folder=tmp_path)).run()
    again = Loop(Line(), config(iterations=6, folder=tmp_path))
    assert without_clock(again.run()) == without_clock(whole[:6]) and again.algorithm.collected == []
    assert without_clock(Loop(Line(), config(iterations=9, folder=tmp_path)).run()) == without_clock(whole)


def truncate(folder):
    path = folder / "state.pt"
    path.write_bytes(path.read_bytes()[:-500])


def alter(folder):
    path = folder / "state.pt"
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)


def lose(folder):
    (folder / "state.pt").unlink()


def spoil_history(folder):
    (folder / "history.json").write_text('[{"iteration": 1')


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("harm", [truncate, alter, lose, spoil_history, empty])
def test_a_corrupt_checkpoint_says_so_and_the_one_before_it_serves(tmp_path, harm):
    settings = {"iterations": 6, "save_every": 2, "folder": tmp_path}
    whole = Loop(Line(), config(**settings))
    whole.run()
    harm(tmp_path / "checkpoint-000006")
    with pytest.raises(CheckpointError, match="checkpoint-000006 cannot be read.*[Dd]elete it"):
        Loop(Line(), config(**settings))
    shutil.rmtree(tmp_path / "checkpoint-000006")  # what the message says to do
    resumed = Loop(Line(), config(**settings))
    assert resumed.iteration == 4
    resumed.run()
    assert same(weights(resumed), weights(whole))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    Loop(Line(), config(iterations=2, folder=tmp_path)).run()
    other = Line()
    other.model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    with pytest.raises(CheckpointError, match="other names or shapes"):
        Loop(other, config(folder=tmp_path))


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(state, path, *_, **__):
    Path(path).write_bytes(b"half")
    no_space()


def torch_failed(state, path, *_, **__):
    Path(path).write_bytes(b"half")
    raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")


@pytest.mark.parametrize(
    "target, failing",
    [
        ("torch.save", no_space),
        ("torch.save", half_written),
        ("torch.save", torch_failed),
        ("pathlib.Path.write_text", no_space),
        ("os.replace", no_space),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(tmp_path, monkeypatch, target, failing):
    settings = {"iterations": 8, "save_every": 4, "folder": tmp_path}

    def fill(loop, metrics):
        if loop.iteration == 8:
            monkeypatch.setattr(target, failing)

    with pytest.raises(CheckpointError, match="could not save .*checkpoint-000008.*disk space") as caught:
        Loop(Line(), config(**settings)).run([fill])
    assert isinstance(caught.value.__cause__, (OSError, RuntimeError))
    monkeypatch.undo()
    assert names(tmp_path) == ["checkpoint-000004"]
    resumed = Loop(Line(), config(**settings))
    assert resumed.iteration == 4
    resumed.run()
    assert names(tmp_path) == ["checkpoint-000004", "checkpoint-000008"]
    whole = Loop(Line(), config(iterations=8))
    whole.run()
    assert same(weights(resumed), weights(whole))


def test_a_write_that_the_system_cuts_short_is_noticed(tmp_path):
    """A limit on the size of files stands in for a full disk: here nothing is mocked."""
    resource = pytest.importorskip("resource", reason="limits on files need POSIX")
    algorithm = Line()
    algorithm.model.append(nn.Linear(1, 10_000))
    loop = Loop(algorithm, config(iterations=2, folder=tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CheckpointError, match="could not save"):
            loop.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []
    loop.run()
    assert names(tmp_path) == ["checkpoint-000002"]


def test_what_a_killed_save_left_is_no_checkpoint(tmp_path):
    settings = {"iterations": 6, "save_every": 3, "folder": tmp_path}
    Loop(Line(), config(**{**settings, "iterations": 3})).run()
    left = tmp_path / "checkpoint-000006.part"
    left.mkdir()
    (left / "state.pt").write_bytes(b"half")
    loop = Loop(Line(), config(**settings))
    assert loop.iteration == 3 and [p.name for p in loop.checkpoints()] == ["checkpoint-000003"]
    loop.run()
    assert names(tmp_path) == ["checkpoint-000003", "checkpoint-000006"]


def test_metrics_that_are_numbers_of_numpy_or_torch_can_be_saved(tmp_path):
    def note(loop, metrics):
        metrics |= {"accuracy": np.float32(0.5), "count": np.int64(3), "score": torch.tensor(0.25)}

    Loop(Line(), config(iterations=2, folder=tmp_path)).run([note])
    (row, _) = json.loads((tmp_path / "checkpoint-000002" / "history.json").read_text())
    assert (row["accuracy"], row["count"], row["score"]) == (0.5, 3, 0.25)


# What cannot go on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_the_training(tmp_path, poison):
    class Poisoned(Line):
        def minibatches(self, experience, iteration):
            x, y = experience
            yield from super().minibatches((x, y * poison if iteration == 5 else y), iteration)

    loop, trusted = Loop(Poisoned(), config(folder=tmp_path, save_every=2)), []
    with pytest.raises(TrainingError, match="gradient is (nan|inf) at iteration 5.*learning rate"):
        loop.run([lambda loop, _: trusted.append(weights(loop))])
    assert same(weights(loop), trusted[-1])  # no step was taken with it
    assert names(tmp_path) == ["checkpoint-000002", "checkpoint-000004"]
    assert Loop(Line(), config(folder=tmp_path)).iteration == 4


def test_a_model_with_nothing_to_train_is_refused():
    algorithm = Line()
    algorithm.model.requires_grad_(False)
    with pytest.raises(TrainingError, match="requires_grad_"):
        Loop(algorithm, config())


# Trackers and the progress bar ------------------------------------------------------------------------------------


def test_trackers_of_accelerate_receive_every_iteration():
    from accelerate.tracking import GeneralTracker

    class Notebook(GeneralTracker):
        name, requires_logging_directory, main_process_only = "notebook", False, True

        def __init__(self):
            super().__init__()
            self.rows, self.finished = [], False

        @property
        def tracker(self):
            return self.rows

        def log(self, values, step=None, **_):
            self.rows.append((step, dict(values)))

        def finish(self):
            self.finished = True

    notebook = Notebook()
    history = Loop(Line(), config(iterations=3, trackers=(notebook,))).run()
    assert [step for step, _ in notebook.rows] == [1, 2, 3]
    assert [values for _, values in notebook.rows] == history
    assert notebook.finished


def test_the_progress_bar_shows_only_where_asked(capfd):
    Loop(Line(), config(iterations=2, name="quiet")).run()
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    Loop(Line(), config(iterations=2, name="spoken", progress=True)).run()
    shown = capfd.readouterr().err
    assert "spoken" in shown and "2/2" in shown and "reward=" in shown


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_it_trains_in_the_precision_asked_for(fresh_accelerate, precision):
    algorithm, dtypes = Line(), []
    original = algorithm.model[0].forward
    algorithm.model[0].forward = lambda x: dtypes.append(original(x).dtype) or original(x)
    history = Loop(algorithm, config(iterations=60, learning_rate=3e-2, mixed_precision=precision)).run()
    assert set(dtypes) == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert all(p.dtype == torch.float32 for p in algorithm.model.parameters())
    assert history[-1]["error"] < 0.05 < 1 < history[0]["error"]
