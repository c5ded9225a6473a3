"""Files from npm's packages: exact versions, each held against its checksum, nothing of theirs is run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from base64 import b64encode
from pathlib import Path

from pixelpolicy.errors import PixelPolicyError

SECONDS = 600


def unpack(lock: dict, folder: Path, *, error: type[PixelPolicyError], lock_name: str, user: str, again: str) -> None:
    """Put the files that a lock names into `folder`.

    The lock maps `name@version` to `integrity` (sha512 of npm's archive) and `files` (path in the archive -> path in
    the folder; a path that ends in / is a folder). Raises `error` where npm is missing, cannot fetch, or what it
    fetched is not what the lock says. For its messages: `lock_name` is the lock's file, `user` who needs the packages,
    `again` what to say once the fault is mended.
    """
    archives = folder / ".archives"
    archives.mkdir(parents=True)
    try:
        _pack(list(lock), archives, error, user, again)
        for package, entry in lock.items():
            _take(_archive(archives, package), package, entry, folder, error, lock_name)
    finally:
        shutil.rmtree(archives, ignore_errors=True)


def _pack(packages: list[str], folder: Path, error: type[PixelPolicyError], user: str, again: str) -> None:
    """Let npm put the packages' archives into `folder`."""
    npm = shutil.which("npm")
    if not npm:
        raise error(
            f"npm was not found, and {user} needs {', '.join(packages)}, which come from there. Install Node.js "
            f"(Debian and Ubuntu: apt install npm), then say {again}"
        )
    advice = (
        f"{user[0].upper()}{user[1:]} needs a network that reaches npm's registry (`npm config get registry` names "
        f"it); mend that and say {again}"
    )
    command = [npm, "pack", *packages, "--pack-destination", str(folder), "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as fault:
        raise error(f"npm fetched nothing within {SECONDS} s. {advice}") from fault
    if done.returncode:
        said = " ".join(line.removeprefix("npm error ") for line in done.stderr.strip().splitlines()[:3])
        raise error(f"npm could not fetch {', '.join(packages)}: {said or 'it does not say why'}. {advice}")


def _archive(folder: Path, package: str) -> Path:
    """Where npm puts the archive of `@scope/name@1.2.3`: scope-name-1.2.3.tgz."""
    name, _, version = package.rpartition("@")
    return folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _take(archive: Path, package: str, entry: dict, made: Path, error: type[PixelPolicyError], lock_name: str) -> None:
    """Copy the files that a lock's entry names out of a package's archive, once its checksum is seen to be right."""
    if not archive.exists():
        raise error(f"npm said it had fetched {package}, and {archive.name} is not there; another npm may do")
    found = "sha512-" + b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != entry["integrity"]:
        raise error(
            f"{package} is not the file that {lock_name} names: its checksum is {found[:20]}..., and should be "
            f"{entry['integrity'][:20]}.... Look whether your registry is to be trusted before you change the lock"
        )
    with tarfile.open(archive) as tar:
        members = {member.name.removeprefix("package/"): member for member in tar if member.isfile()}
        for source, target in entry["files"].items():
            # a path that ends in / stands for all that lies below it
            chosen = [name for name in members if name == source or (source.endswith("/") and name.startswith(source))]
            if not chosen:
                raise error(f"{package} has no {source}: mend its `files` in {lock_name}")
            for name in chosen:
                path = made / (target + name.removeprefix(source))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(members[name]).read())
