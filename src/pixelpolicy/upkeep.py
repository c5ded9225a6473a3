"""What `pixelpolicy check` looks at: each check is given the root of the course and returns its complaints."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

SKIPPED = {".venv", ".git", "work", "runs", "results", "_build", ".pytest_cache", ".ruff_cache"}


def lint(root: Path) -> list[str]:
    """Complaints of `ruff check`."""
    return _lines([sys.executable, "-m", "ruff", "check", "--quiet", "--output-format=concise", "."], root)


def formatting(root: Path) -> list[str]:
    """Files that `ruff format` would change."""
    return _lines([sys.executable, "-m", "ruff", "format", "--quiet", "--check", "--output-format=concise", "."], root)


def _lines(command: list[str], root: Path) -> list[str]:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return (lines or [f"{' '.join(command[1:])} ended with {done.returncode}"]) if done.returncode else []


def floors(root: Path) -> list[str]:
    """Imports that go upwards, as the test of floors finds them."""
    tests = [str(path.relative_to(root)) for path in root.glob("tests/**/test_floors.py")]
    if not tests:
        return ["tests/ has no test_floors.py"]
    return _lines([sys.executable, "-m", "pytest", "-q", "--tb=line", "--no-header", *tests], root)


def drift(root: Path) -> list[str]:
    """Labs that are not what their solutions give."""
    from pixelpolicy.course.build import build_labs
    from pixelpolicy.errors import LabError

    try:
        build_labs(check=True, root=root)
    except LabError as error:
        return [str(error)]
    return []


def executed(root: Path) -> list[str]:
    """Labs that the book shows as they no longer are, or cannot show with outputs."""
    from pixelpolicy.book.executed import complaints
    from pixelpolicy.errors import PixelPolicyError

    try:
        return complaints(root)
    except PixelPolicyError as error:
        return [str(error)]


def links(root: Path) -> list[str]:
    """Links in Markdown files to files that are not there."""
    complaints = []
    for path in sorted(root.rglob("*.md")):
        if SKIPPED & set(path.relative_to(root).parts):
            continue
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.lstrip().startswith("```")
            # Code is no link; an image inside a link is looked at by itself.
            plain = "" if fenced else re.sub(r"`[^`]*`", "", line)
            for target in re.findall(r"\]\(\s*<?([^)>\s]+)", plain):
                file = unquote(target.split("#")[0])
                if file and not re.match(r"[a-z][a-z0-9+.-]*:", file) and not (path.parent / file).exists():
                    complaints.append(f"{path.relative_to(root)}:{number}: there is no {target}")
    return complaints


def references(root: Path) -> list[str]:
    """Whether book/references.bib is what the atlas gives, and every citation is in it."""
    from pixelpolicy import atlas
    from pixelpolicy.errors import AtlasError

    try:
        return atlas.check(root)
    except AtlasError as error:
        return str(error).splitlines()


def environment(root: Path) -> list[str]:
    """Whether pyproject.toml, constraints.txt, environment.yml and CITATION.cff agree with each other."""
    import yaml
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = [text for group in project.get("optional-dependencies", {}).values() for text in group]
    conda = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    installed = next((entry["pip"] for entry in conda if isinstance(entry, dict)), [])
    pins, complaints = pinned((root / "constraints.txt").read_text(encoding="utf-8")), []
    listed = pinned("\n".join(line for line in installed if not line.startswith("-")))
    for text in [*project["dependencies"], *extra]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        for file, versions in (("constraints.txt", pins), ("environment.yml", listed)):
            if name not in versions:
                if file == "constraints.txt" or text not in extra:
                    complaints.append(f"{file} has no exact version of {name}, which pyproject.toml asks for")
            elif not wanted.specifier.contains(versions[name]):
                complaints.append(f"{file} has {name}=={versions[name]}; pyproject.toml asks for {text}")
    for name, version in listed.items():
        if pins.get(name) != version:
            complaints.append(f"environment.yml has {name}=={version}, constraints.txt {pins.get(name, 'none')}")
    if not any(re.match(r"(-e|--editable)\s+\.(\[|$)", line) for line in installed):
        complaints.append("environment.yml does not install the course itself: its pip section lacks '-e .'")
    python = next((entry for entry in conda if isinstance(entry, str) and re.match(r"python\b", entry)), "python=none")
    version = re.sub(r"[^0-9.]", "", python.removeprefix("python"))
    if not version or not Requirement(f"python{project['requires-python']}").specifier.contains(version):
        complaints.append(f"environment.yml has {python}; pyproject.toml asks for python{project['requires-python']}")
    return complaints + versions_agree(root, project["version"])


def pinned(text: str) -> dict[str, str]:
    """``{canonical name: version}`` of the lines ``name==version``."""
    from packaging.utils import canonicalize_name

    lines = (
        re.fullmatch(r"\s*([\w.-]+)(?:\[[^\]]*\])?==([^\s;*]+)\s*", line.split("#")[0]) for line in text.splitlines()
    )
    return {canonicalize_name(line[1]): line[2] for line in lines if line}


def versions_agree(root: Path, version: str) -> list[str]:
    """Whether the version of pyproject.toml is that of CITATION.cff, of the package and of the latest change."""
    places = {
        "CITATION.cff": r"(?m)^version: *\"?([^\s\"]+)",
        "src/pixelpolicy/__init__.py": r"(?m)^__version__ = \"([^\"]+)",
        "CHANGELOG.md": r"(?m)^## ([\d.]+)",
    }
    found = {file: re.search(pattern, (root / file).read_text(encoding="utf-8")) for file, pattern in places.items()}
    return [
        f"{file} has version {match[1] if match else 'none'}, pyproject.toml {version}"
        for file, match in found.items()
        if not match or match[1] != version
    ]


CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "lint (ruff check)": lint,
    "format (ruff format)": formatting,
    "floors: no import goes upwards": floors,
    "labs are what their solutions give": drift,
    "executed labs are those of their sources": executed,
    "links in Markdown lead to files": links,
    "references.bib is what the atlas gives, and every citation is in it": references,
    "environment files agree": environment,
}
