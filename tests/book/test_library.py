"""Pages of the library: every public module has its place once, and a docstring's code stays code."""

import pkgutil
import re
from importlib.util import find_spec

import pytest

from pixelpolicy.book.extension import _pictures_when_needed, _signatures_in_lines
from pixelpolicy.book.icons import SCRIPT, keep_used_icons
from pixelpolicy.book.library import GROUND, PACKAGES, code_stands_apart, defaults_have_names, place_library
from pixelpolicy.errors import BookError


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
    marked = ["Does a thing::", "", "    x = 1"]
    code_stands_apart(None, "module", "m", None, None, marked)
    assert marked == ["Does a thing::", "", "    x = 1"]
    plain = ["One line", "    that goes on."]
    code_stands_apart(None, "module", "m", None, None, plain)
    assert plain == ["One line", "    that goes on."]


def test_pages_bring_the_icons_that_they_show(tmp_path):
    icons = {f"icon-{place}": f'"icon-{place}":[512,512,[],"f{place:04}","M{place} 0"]' for place in range(1500)}
    icons["bars"] = 'bars:[448,512,["navicon"],"f0c9","M0 96"]'
    icons["gone"] = 'gone:[448,512,[57],"f0c8",["M0","M1"]]'
    script = tmp_path / SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text(f"var a={{{','.join(icons.values())}}};function run(){{return [1,2]}}")
    (script.parent / "theme.js").write_text('const cross = "fa-icon-3";')
    (tmp_path / "index.html").write_text('<i class="fas fa-icon-1200"></i><i class="fa-solid fa-navicon"></i>')
    assert keep_used_icons(tmp_path) == 3
    left = script.read_text()
    kept = f"var a={{{icons['icon-3']},{icons['icon-1200']},{icons['bars']},}};function run(){{return [1,2]}}"
    assert left == kept
    with pytest.raises(BookError, match="another way"):
        keep_used_icons(tmp_path)


def test_the_first_picture_comes_at_once_and_others_later():
    body = '<p><img alt="a" src="a"/></p><img alt="b" src="b"><img loading="eager" src="c"><pre>&lt;img x</pre>'
    made = _pictures_when_needed(body)
    assert made == body.replace('<img alt="b"', '<img loading="lazy" alt="b"')
    assert _pictures_when_needed("<p>none</p>") == "<p>none</p>"


def test_parameters_are_lines_and_no_descriptions():
    rest = "<dl>\n<dt>x</dt><dd>y</dd></dl>"
    body = f"<dt>f(\n\n<dl>\n<dd><em>a: <a>B</a></em>,</dd>\n<dd><em>c</em>,</dd>\n</dl>\n\n)</dt>{rest}"
    made = _signatures_in_lines(body)
    lines = '<span class="sig-line"><em>a: <a>B</a></em>,</span><span class="sig-line"><em>c</em>,</span>'
    assert made == f"<dt>f({lines})</dt>{rest}"


def test_a_default_is_shown_by_its_name():
    given = "(a: ~torch.Tensor, f: ~collections.abc.Callable = <function group_advantages at 0x7f01>, b=<factory>, "
    given += "g=<function outer.<locals>.inner at 0x7f>, k=<class 'pixelpolicy.rl.Reward'>, o=<object object at 0x1>)"
    shown = "(a: ~torch.Tensor, f: ~collections.abc.Callable = group_advantages, b=..., g=inner, k=Reward, o=...)"
    assert defaults_have_names(None, "class", "C", None, None, given, "int") == (shown, "int")
    assert defaults_have_names(None, "attribute", "C.a", None, None, None, None) == (None, None)
