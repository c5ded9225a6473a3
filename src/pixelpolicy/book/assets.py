"""Scripts and fonts that the pages need, from npm: exact versions, their checksums in `book/assets.json`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

from pixelpolicy.errors import BookError

LOCK = "book/assets.json"
STAMP = ".made-from.json"
SECONDS = 600


def fetch_assets(root: Path, cache: Path) -> Path:
    """Fill `cache` with the files that `book/assets.json` names, unless it holds them already; returns `cache`.

    The lock maps `name@version` to `integrity` (sha512 of npm's archive) and `files` (path in the archive -> path in
    the cache; a path that ends in / is a folder). Raises BookError where npm is missing, cannot fetch, or what it
    fetched is not what the lock says; the cache is then as it was.
    """
    text = (root / LOCK).read_text(encoding="utf-8")
    stamp = cache / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".assets-") as scratch:
        archives, made = Path(scratch) / "archives", Path(scratch) / "assets"
        archives.mkdir()
        lock = json.loads(text)
        _pack(list(lock), archives)
        for package, entry in lock.items():
            _unpack(_archive(archives, package), package, entry, made)
        (made / STAMP).write_text(text, encoding="utf-8")
        shutil.rmtree(cache, ignore_errors=True)
        made.rename(cache)
    return cache


def _pack(packages: list[str], folder: Path) -> None:
    """Let npm put the packages' archives into `folder`; nothing of theirs is run."""
    npm = shutil.which("npm")
    if not npm:
        raise BookError(
            f"npm was not found, and the book needs {', '.join(packages)}, which come from there. Install Node.js "
            "(Debian and Ubuntu: apt install npm), then say `make book` again; later builds need no npm"
        )
    command = [npm, "pack", *packages, "--pack-destination", str(folder), "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BookError(f"npm fetched nothing within {SECONDS} s. {_ADVICE}") from error
    if done.returncode:
        said = " ".join(line.removeprefix("npm error ") for line in done.stderr.strip().splitlines()[:3])
        raise BookError(f"npm could not fetch {', '.join(packages)}: {said or 'it does not say why'}. {_ADVICE}")


_ADVICE = (
    "The first build of the book needs a network that reaches npm's registry (`npm config get registry` names it); "
    "mend that and say `make book` again. Later builds take the files from _build/assets"
)


def _archive(folder: Path, package: str) -> Path:
    """Where npm puts the archive of `@scope/name@1.2.3`: scope-name-1.2.3.tgz."""
    name, _, version = package.rpartition("@")
    return folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _unpack(archive: Path, package: str, entry: dict, made: Path) -> None:
    """Copy the files that a lock's entry names out of a package's archive, once its checksum is seen to be right."""
    if not archive.exists():
        raise BookError(f"npm said it had fetched {package}, and {archive.name} is not there; another npm may do")
    found = "sha512-" + b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != entry["integrity"]:
        raise BookError(
            f"{package} is not the file that {LOCK} names: its checksum is {found[:20]}..., and should be "
            f"{entry['integrity'][:20]}.... Look whether your registry is to be trusted before you change the lock"
        )
    with tarfile.open(archive) as tar:
        members = {member.name.removeprefix("package/"): member for member in tar if member.isfile()}
        for source, target in entry["files"].items():
            # a path that ends in / stands for all that lies below it
            chosen = [name for name in members if name == source or (source.endswith("/") and name.startswith(source))]
            if not chosen:
                raise BookError(f"{package} has no {source}: mend its `files` in {LOCK}")
            for name in chosen:
                path = made / (target + name.removeprefix(source))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(members[name]).read())
