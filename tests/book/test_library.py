"""Pages of the library: every public module has its place once, and a docstring's code stays code."""

import pkgutil
import re
from importlib.util import find_spec

from pixelpolicy.book.library import GROUND, PACKAGES, code_stands_apart, place_library


def test_every_public_module_stands_on_one_page(tmp_path):
    names = place_library(tmp_path)
    assert names == [f"library/{name}" for name in (*PACKAGES, "ground")]
    text = "\n".join((tmp_path / f"{name}.md").read_text(encoding="utf-8") for name in names)
    shown = re.findall(r"automodule:: (\S+)", text)
    wanted = {f"pixelpolicy.{name}" for name in (*PACKAGES, *GROUND)}
    for name in PACKAGES:
        places = find_spec(f"pixelpolicy.{name}").submodule_search_locations
        found = (info.name for info in pkgutil.walk_packages(places, f"pixelpolicy.{name}."))
        wanted |= {module for module in found if not module.rpartition(".")[2].startswith("_")}
    assert sorted(shown) == sorted(wanted)
    assert "`from pixelpolicy.rl import CONVENTIONS, group_advantages, zero_variance_groups`" in text


def test_code_in_a_docstring_is_set_as_code():
    lines = ["Does a thing.", "", "    x = make(*parts)", "", "    y = x", "", "Then more.", "", "- a list", "  of one"]
    code_stands_apart(None, "module", "m", None, None, lines)
    assert lines == [
        "Does a thing.", "", "::", "", "    x = make(*parts)", "", "    y = x", "", "Then more.", "", "- a list",
        "  of one",
    ]  # fmt: skip
    plain = ["One line", "    that goes on."]
    code_stands_apart(None, "module", "m", None, None, plain)
    assert plain == ["One line", "    that goes on."]
