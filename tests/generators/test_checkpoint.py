"""Checkpoints: what is saved comes back, what is unsound is refused, and a failure leaves no trace."""

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from pixelpolicy import generators, verified
from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators import checkpoint

CARD = "# tiny\n\nA twin for tests.\n"
MODULES = ("transformer", "vae", "prompt_encoder")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """A checkpoint folder; copy it before harming it."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    generators.save(tiny, folder, CARD)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


@pytest.fixture
def shipped(folder, monkeypatch):
    """The same folder in the place of the checkpoints that come with the package."""
    for module in (checkpoint, verified):
        monkeypatch.setattr(module, "CHECKPOINTS", folder.parent)
    return folder


@pytest.fixture
def other(tiny):
    """A copy of the twin with another transformer."""
    changed = dataclasses.replace(tiny, transformer=copy.deepcopy(tiny.transformer))
    generator = torch.Generator().manual_seed(8)
    for parameter in changed.transformer.parameters():
        parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return changed


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that lies below a folder, hidden or not."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# Saving and loading ---------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_up_to_float16(tiny, saved):
    loaded = generators.load(saved)
    for name in MODULES:
        before, after = getattr(tiny, name).state_dict(), getattr(loaded, name).state_dict()
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert after[key].dtype == torch.float32
            # float16 keeps 11 bits: half of 2^-10, and half of 2^-24 below its normal range.
            assert ((after[key] - value).abs() <= value.abs() * 2**-11 + 2**-25).all(), key
        module = getattr(loaded, name)
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    assert loaded.vae.config.scaling_factor == 1.75
    assert loaded.vae.config.shift_factor == 0.25
    assert loaded.scheduler.config.shift == tiny.scheduler.config.shift
    prompts, seeds = ["a red circle", "two blue squares"], [1, 2]
    torch.testing.assert_close(loaded.generate(prompts, seeds), tiny.generate(prompts, seeds), atol=0.02, rtol=0)


def test_saving_leaves_the_generator_as_it_was(tiny, tmp_path):
    before = {name: copy.deepcopy(getattr(tiny, name).state_dict()) for name in MODULES}
    generators.save(tiny, tmp_path / "again", CARD)
    for name in MODULES:
        for key, value in getattr(tiny, name).state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, before[name][key])


def test_saving_what_was_loaded_writes_the_same_bytes(saved, tmp_path):
    generators.save(generators.load(saved), tmp_path / "elsewhere" / "copy", CARD)
    assert everything(tmp_path / "elsewhere" / "copy") == everything(saved)


def test_the_layout_is_that_of_diffusers_with_a_manifest(saved):
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "manifest.json",
        "transformer/config.json",
        WEIGHTS,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "prompt_encoder/config.json",
        "prompt_encoder/model.safetensors",
    }
    assert (saved / "README.md").read_text() == CARD
    entries = json.loads((saved / "manifest.json").read_text())["files"]
    assert set(entries) == files - {"manifest.json"}
    for name, entry in entries.items():
        data = (saved / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert (saved / name).stat().st_mode & 0o044, f"others cannot read {name}"
    for path in saved.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    assert str(saved.parent) not in "".join(path.read_text() for path in saved.rglob("*.json"))


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("transformer", "SD3Transformer2DModel"),
        ("vae", "AutoencoderKL"),
        ("scheduler", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_plain_diffusers_loads_the_first_three_parts(tiny, saved, part, name):
    import diffusers

    loaded = getattr(diffusers, name).from_pretrained(saved, subfolder=part)
    ours = getattr(tiny, part)
    assert type(loaded) is type(ours)
    private = {key for key in {**loaded.config, **ours.config} if key.startswith("_")}
    assert {k: v for k, v in loaded.config.items() if k not in private} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in ours.config.items() if k not in private
    }
    if part != "scheduler":
        for key, value in ours.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value.half().float())


def test_a_name_is_one_of_the_packages_and_a_path_is_a_folder(shipped, monkeypatch):
    key = "position"
    expected = generators.load(shipped).prompt_encoder.state_dict()[key]
    assert torch.equal(generators.load("tiny").prompt_encoder.state_dict()[key], expected)
    assert torch.equal(generators.load(str(shipped)).prompt_encoder.state_dict()[key], expected)
    monkeypatch.chdir(shipped.parent)
    assert torch.equal(generators.load(Path("tiny")).prompt_encoder.state_dict()[key], expected)
    assert torch.equal(generators.load("./tiny").prompt_encoder.state_dict()[key], expected)


def test_the_packages_checkpoints_lie_beside_its_code():
    assert checkpoint.CHECKPOINTS == Path(generators.__file__).parents[1] / "checkpoints"


def test_importing_generators_or_rewards_does_not_import_diffusers():
    code = (
        "import sys, pixelpolicy.generators, pixelpolicy.rewards; "
        "print([m for m in ('diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_loading_says_nothing(saved, capfd):
    generators.load(saved)
    assert capfd.readouterr() == ("", "")


# What is refused ------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "name", [WEIGHTS, "vae/config.json", "prompt_encoder/model.safetensors", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize(
    ("harm", "word"),
    [(flip, "altered"), (cut, "truncated"), (Path.unlink, "missing"), (lambda p: p.write_bytes(b""), "truncated")],
    ids=["one bit", "cut short", "missing", "empty"],
)
def test_an_unsound_file_is_named_with_what_to_do(shipped, name, harm, word):
    expected = hashlib.sha256((shipped / name).read_bytes()).hexdigest()[:8]
    harm(shipped / name)
    with pytest.raises(CheckpointError) as caught:
        generators.load("tiny")
    message = str(caught.value)
    assert f"{shipped / name} is {word}" in message
    assert f"git checkout -- {shipped / name}" in message
    assert "pixelpolicy pretrain tiny" in message
    if word != "missing":
        found = hashlib.sha256((shipped / name).read_bytes()).hexdigest()[:8]
        assert expected in message
        assert found in message


def test_an_unsound_file_of_ones_own_is_not_to_be_trained_by_the_course(folder):
    flip(folder / WEIGHTS)
    with pytest.raises(CheckpointError) as caught:
        generators.load(folder)
    assert "altered" in str(caught.value)
    assert "pretrain" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"files": []}', '{"files": {"vae/config.json": {}}}', '{"files": {}}']
)
def test_an_unsound_manifest_is_refused(shipped, text):
    (shipped / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match="manifest.json.*git checkout"):
        generators.load("tiny")


def test_a_folder_without_a_manifest_is_refused(shipped):
    (shipped / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="has no manifest.json.*git checkout"):
        generators.load("tiny")


def test_a_missing_checkpoint_is_refused_with_those_there_are(shipped):
    with pytest.raises(CheckpointError, match="no checkpoint 'tinny'.*exist: tiny.*`pixelpolicy pretrain tinny`"):
        generators.load("tinny")
    with pytest.raises(CheckpointError, match="no checkpoint folder .*nowhere"):
        generators.load(shipped.parent / "nowhere")


@pytest.mark.parametrize("name", [WEIGHTS, "vae/config.json", "prompt_encoder/model.safetensors"])
@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut short", "missing"])
def test_without_verifying_the_error_is_still_the_projects_own(folder, name, harm):
    harm(folder / name)
    with pytest.raises(CheckpointError, match="could not be loaded"):
        generators.load(folder, verify=False)


def test_weights_of_another_shape_are_refused(folder, tiny):
    config = json.loads((folder / "prompt_encoder/config.json").read_text())
    (folder / "prompt_encoder/config.json").write_text(json.dumps(config | {"width": 32}))
    with pytest.raises(CheckpointError, match="could not be loaded"):
        generators.load(folder, verify=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_that_float16_cannot_hold_are_not_saved(other, folder, value):
    before = everything(folder.parent)
    next(other.transformer.parameters()).view(-1)[0] = value
    with pytest.raises(CheckpointError, match="not all finite in float16"):
        generators.save(other, folder, CARD)
    assert everything(folder.parent) == before


def test_a_folder_of_something_else_is_not_replaced(tiny, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("Years of work.")
    (tmp_path / "file").write_text("A file.")
    before = everything(tmp_path)
    for name in ("thesis", "file"):
        with pytest.raises(CheckpointError, match="something else than a checkpoint"):
            generators.save(tiny, tmp_path / name, CARD)
    assert everything(tmp_path) == before


# Whole or not at all --------------------------------------------------------------------------------------------


def test_saving_again_replaces_the_previous_version(other, folder):
    generators.save(other, folder, "# other\n")
    assert (folder / "README.md").read_text() == "# other\n"
    loaded = generators.load(folder)
    for key, value in other.transformer.state_dict().items():
        assert torch.equal(loaded.transformer.state_dict()[key], value.half().float())
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_checkpoint_that_lost_files_can_be_made_again(other, folder):
    (folder / "manifest.json").unlink()
    (folder / WEIGHTS).unlink()
    generators.save(other, folder, CARD)
    generators.load(folder)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_rust(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def after(calls: int, function, then):
    """``function`` for so many calls, and then ``then``."""
    count = iter(range(10**6))
    return lambda *args, **kwargs: (function if next(count) < calls else then)(*args, **kwargs)


FAULTS = {
    "first weights": (safetensors.torch, "save_file", 0, full_in_rust),
    "second weights": (safetensors.torch, "save_file", 1, full),
    "prompt encoder": ("pixelpolicy.generators.flow", "save_file", 0, full_in_rust),
    "configuration": (Path, "write_text", 3, full),
    "card": (Path, "write_text", 5, full),
    "manifest": (Path, "write_text", 6, full),
    "check sums": (hashlib, "file_digest", 2, full),
    "moving the old one away": (os, "rename", 0, full),
    "moving the new one in place": (os, "rename", 1, lambda *_: full()),
}


@contextlib.contextmanager
def faulty(where: str):
    """Fail at one point, until the end of the context; `os.rename` fails there once."""
    owner, name, calls, then = FAULTS[where]
    owner = sys.modules[owner] if isinstance(owner, str) else owner
    real = getattr(owner, name)
    if owner is os:
        then = after(1, then, real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, after(calls, real, then))
        yield


@pytest.mark.parametrize("where", [*FAULTS, "first weights, with no previous version"])
def test_a_full_disk_is_reported_and_leaves_everything_as_it_was(other, folder, where):
    if where not in FAULTS:
        where = "first weights"
        shutil.rmtree(folder)
    before = everything(folder.parent)
    with faulty(where), pytest.raises(CheckpointError) as caught:
        generators.save(other, folder, "# other\n")
    message = str(caught.value)
    assert str(folder) in message
    assert "No space left on device" in message
    assert "MB are free" in message
    assert "Nothing was changed" in message
    assert everything(folder.parent) == before
    generators.save(other, folder, "# other\n")
    generators.load(folder)


def test_an_interruption_leaves_everything_as_it_was(other, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    before = everything(folder.parent)
    for owner, name, calls in ((safetensors.torch, "save_file", 1), (os, "rename", 1)):
        real = getattr(owner, name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, after(calls, real, after(1, interrupt, real)))
            with pytest.raises(KeyboardInterrupt):
                generators.save(other, folder, "# other\n")
        assert everything(folder.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_write_that_the_system_refuses_leaves_everything_as_it_was(other, folder):
    import resource

    before, limits = everything(folder.parent), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            generators.save(other, folder, "# other\n")
        with pytest.raises(CheckpointError, match="File too large"):
            checkpoint.save_weights(other.transformer.state_dict(), folder.parent / "weights.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything(folder.parent) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 900 kB: room for one twin, not for two."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full_keeps_the_previous_version(other, folder, small_disk):
    shutil.copytree(folder, small_disk / "tiny")
    before = everything(small_disk)
    with pytest.raises(CheckpointError, match=r"No space left on device.*needs about 0\.\d MB and 0\.\d MB are free"):
        generators.save(other, small_disk / "tiny", "# other\n")
    assert everything(small_disk) == before
    generators.load(small_disk / "tiny")


def test_what_a_killed_process_left_behind_is_put_right(other, folder):
    """The states between the two moves, and after them, of a process that was killed."""
    part, kept = verified.part_of(folder), verified.kept_of(folder)
    old = everything(folder)
    generators.save(other, folder.parent / "new", "# new\n")
    new = everything(folder.parent / "new")

    os.rename(folder, kept)
    os.rename(folder.parent / "new", part)
    generators.load(folder)
    assert everything(folder) == old
    os.rename(folder, kept)
    os.rename(part, folder)
    generators.load(folder)
    assert everything(folder) == new
    assert not kept.exists()
    part.mkdir()
    (part / "half").write_text("written")
    generators.save(other, folder, "# newer\n")
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


# Differences to a base ------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tiny, other, tmp_path):
    """A difference on disk."""
    path = tmp_path / "long.safetensors"
    change = checkpoint.difference(other.transformer.state_dict(), tiny.transformer.state_dict())
    checkpoint.save_weights(change, path, base=tiny)
    return path


def fresh(tiny):
    return dataclasses.replace(tiny, transformer=copy.deepcopy(tiny.transformer))


@pytest.mark.parametrize("alpha", [1.0, 0.0, 0.5, -1.0])
def test_a_difference_leads_from_the_base_to_what_was_tuned(tiny, other, stored, alpha):
    changed = checkpoint.apply_difference(fresh(tiny), stored, alpha)
    base, tuned = tiny.transformer.state_dict(), other.transformer.state_dict()
    for key, value in changed.transformer.state_dict().items():
        expected = (1 - alpha) * base[key] + alpha * tuned[key]
        tolerance = abs(alpha) * (tuned[key] - base[key]).abs() * 2**-11 + 1e-6
        assert ((value - expected).abs() <= tolerance).all(), key
        assert value.dtype == torch.float32


def test_a_difference_holds_only_what_changed_in_float16(tiny, other, stored):
    names = {name for name, _ in tiny.transformer.named_parameters()}
    with safe_open(stored, "pt") as file:
        assert set(file.keys()) == names
        assert {file.get_slice(name).get_dtype() for name in names} == {"F16"}
    weights = checkpoint.load_weights(stored)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    same = checkpoint.difference(tiny.transformer.state_dict(), tiny.transformer.state_dict())
    assert same == {}
    checkpoint.save_weights(same, stored)
    assert checkpoint.load_weights(stored) == {}


def test_two_differences_can_be_applied_one_after_the_other(tiny, other, stored):
    twice = checkpoint.apply_difference(checkpoint.apply_difference(fresh(tiny), stored, 0.5), stored, 0.5)
    once = checkpoint.apply_difference(fresh(tiny), stored)
    for key, value in once.transformer.state_dict().items():
        torch.testing.assert_close(twice.transformer.state_dict()[key], value, atol=1e-6, rtol=1e-6)


def test_the_fingerprint_of_a_base_survives_saving_and_tuning(tiny, other, saved):
    assert checkpoint.fingerprint(tiny) == checkpoint.fingerprint(generators.load(saved))
    assert checkpoint.fingerprint(tiny) == checkpoint.fingerprint(other)


def test_a_difference_to_another_base_is_refused_and_changes_nothing(tiny, other, stored, tmp_path):
    base = dataclasses.replace(fresh(tiny), prompt_encoder=copy.deepcopy(tiny.prompt_encoder))
    base.prompt_encoder.position += 0.1
    with pytest.raises(CheckpointError, match="another base"):
        checkpoint.apply_difference(base, stored)
    odd = {"no.such.weight": torch.ones(2)}, {"proj_out.bias": torch.ones(3)}
    for i, change in enumerate(odd):
        checkpoint.save_weights(change, tmp_path / f"{i}.safetensors")
        with pytest.raises(CheckpointError, match=f"another base.*{next(iter(change))}"):
            checkpoint.apply_difference(base, tmp_path / f"{i}.safetensors")
    for key, value in base.transformer.state_dict().items():
        assert torch.equal(value, tiny.transformer.state_dict()[key])


def test_the_difference_of_unlike_states_is_refused():
    with pytest.raises(CheckpointError, match="only one has b"):
        checkpoint.difference({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})


def test_unsound_weights_are_refused_with_what_to_do(stored):
    sidecar = stored.with_name("long.safetensors.json")
    record = json.loads(sidecar.read_text())
    data = stored.read_bytes()
    assert (record["size"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    for harm, word in ((flip, "altered"), (cut, "truncated"), (Path.unlink, "missing")):
        harm(stored)
        with pytest.raises(CheckpointError, match=f"long.safetensors is {word}.*git checkout"):
            checkpoint.load_weights(stored)
        stored.write_bytes(data)
    for text in ("", "[]", "{}", None):
        sidecar.unlink() if text is None else sidecar.write_text(text)
        with pytest.raises(CheckpointError, match="cannot be read.*git checkout"):
            checkpoint.load_weights(stored)


def test_weights_are_written_whole_or_not_at_all(tiny, stored, monkeypatch):
    before = everything(stored.parent)
    change = {"proj_out.bias": torch.ones_like(tiny.transformer.proj_out.bias)}
    for owner, name, calls in (
        (checkpoint, "save_file", 0),
        (Path, "write_text", 0),
        *((os, "rename", i) for i in range(4)),
    ):
        real = getattr(owner, name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, after(calls, real, after(1, full, real)))
            with pytest.raises(CheckpointError, match="No space left on device.*Nothing was changed"):
                checkpoint.save_weights(change, stored)
        assert everything(stored.parent) == before
    with pytest.raises(CheckpointError, match="not all finite"):
        checkpoint.save_weights({"a": torch.tensor([float("nan")])}, stored)
    assert everything(stored.parent) == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", after(1, os.rename, full))
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoint.save_weights(change, stored.with_name("new.safetensors"))
    assert everything(stored.parent) == before
    checkpoint.save_weights(change, stored)
    assert set(checkpoint.load_weights(stored)) == {"proj_out.bias"}
    assert len(everything(stored.parent)) == 2


# The checkpoints of the package ---------------------------------------------------------------------------------


def test_the_packages_checkpoints_are_sound_and_small():
    folders = [path.parent for path in checkpoint.CHECKPOINTS.glob("*/manifest.json")]
    assert "shapes" in {folder.name for folder in folders}
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders]
    assert max(sizes) <= 10e6
    assert sum(sizes) <= 40e6
    for folder in folders:
        verified.check_manifest(folder)
        if (folder / "transformer").is_dir():  # the others belong to rewards
            generators.load(folder.name)
