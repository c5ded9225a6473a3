"""Pages of the library, one a package: Sphinx's autodoc sets what the docstrings and signatures say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pixelpolicy

FOLDER = "library"
# Lowest floor first. `course` and `book` are left out: what cuts labs and sets pages is no library.
PACKAGES = (
    "rl",
    "control",
    "worlds",
    "generators",
    "policies",
    "pipelines",
    "rewards",
    "finetune",
    "viz",
    "widgets",
    "atlas",
)
# Modules beside the packages, on a page of their own.
GROUND = ("errors", "profiles", "verified")


def place_library(folder: Path) -> list[str]:
    """Write the pages of the library into `folder/library`; returns their names, in the order of the floors."""
    pages = {name: _page(name) for name in PACKAGES}
    pages["ground"] = "\n".join(
        ["# Errors, profiles and files\n", *(_module(f"pixelpolicy.{name}", "") for name in GROUND)]
    )
    (folder / FOLDER).mkdir()
    for name, text in pages.items():
        (folder / FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    return [f"{FOLDER}/{name}" for name in pages]


def code_stands_apart(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """For autodoc: what a docstring indents after an empty line is code, as in Markdown."""
    for place in reversed(range(1, len(lines))):
        begins = lines[place].startswith("    ") and not lines[place - 1].strip()
        before = next((line for line in reversed(lines[:place]) if line.strip()), "")
        if begins and not before.startswith(" ") and not before.endswith("::"):
            lines[place:place] = ["::", ""]


def defaults_have_names(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """For autodoc: a default that is a function is shown by its name, and any other thing without words as dots."""
    named = re.sub(r"<function (?:[\w.<>]*\.)?(\w+) at 0x\w+>", r"\1", signature or "")
    named = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", named)
    return re.sub(r"<[\w .']+(?:at 0x\w+)?>", "...", named) or signature, returns


def _page(name: str) -> str:
    """One package: its own words, then each public module with what stands in it."""
    package = f"pixelpolicy.{name}"
    home = Path(pixelpolicy.__file__).parent / name
    exported = _exported(home / "__init__.py")
    text = [f"# `{package}`\n", _autodoc(package, "no-members")]
    for path in sorted(home.rglob("*.py")):
        module = ".".join((package, *path.relative_to(home).with_suffix("").parts))
        if path.name.startswith("_"):
            continue
        names = exported.get(module)
        text.append(_module(module, f"`from {package} import {', '.join(names)}`\n" if names else ""))
    return "\n".join(text)


def _module(name: str, words: str) -> str:
    return f"## `{name.removeprefix('pixelpolicy.')}`\n\n{words}\n{_autodoc(name, 'members')}"


def _autodoc(module: str, option: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   :{option}:\n```\n"


def _exported(init: Path) -> dict[str, list[str]]:
    """Which names of which modules a package hands on, from the imports in its `__init__.py`."""
    tree = ast.parse(init.read_text(encoding="utf-8"))
    return {node.module: [alias.name for alias in node.names] for node in tree.body if isinstance(node, ast.ImportFrom)}
