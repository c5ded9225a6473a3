"""The book's own Sphinx extension: nothing from the outside, and pages that assistive technology can read."""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle

from pixelpolicy.book import atlas_page, chapter_map, front
from pixelpolicy.book.executed import STATE
from pixelpolicy.book.explorer import RewardExplorerHere, add_script
from pixelpolicy.book.library import code_stands_apart, defaults_have_names

ASSETS = "assets"
# It brings the scripts of Jupyter's widgets, in `widgets` too, when a widget is near.
WIDGET_SCRIPT = "widgets/when-near.js"


class AuthorYearLabels(BaseLabelStyle):
    """Labels as chapters cite: Black et al., 2023."""

    def format_labels(self, sorted_entries):
        """One label an entry, in order."""
        for entry in sorted_entries:
            yield f"{_people(entry)}, {entry.fields.get('year', 'no year')}"


class BookStyle(Style):
    """pybtex's plain style under author-year labels."""

    default_label_style = AuthorYearLabels


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    register_plugin("pybtex.style.formatting", "pixelpolicy", BookStyle)
    app.add_directive("reward-explorer", RewardExplorerHere)
    app.add_directive("atlas", atlas_page.AtlasHere)
    app.add_directive("chapter-map", chapter_map.MapHere)
    app.add_node(chapter_map.Map, html=(chapter_map.visit_map, None))
    # jupyter-book puts each script below _static on every page, so what only some pages need joins after its look
    app.connect("builder-inited", _add_assets)
    # before sphinxcontrib-bibtex writes labels, at the usual priority of 500
    app.connect("env-updated", _prepare_entries, priority=400)
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("autodoc-process-docstring", code_stands_apart)
    app.connect("autodoc-process-signature", defaults_have_names)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _add_assets(app: Any) -> None:
    app.config.html_static_path.append(str(Path(app.srcdir) / ASSETS))


def _mend_page(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """A script for pages with widgets; no thebe, which would be loaded from afar; roles of the reference list."""
    scripts = context["script_files"]
    if any(script.attributes.get("type") == STATE for script in scripts):
        app.add_js_file(WIDGET_SCRIPT, priority=801, loading_method="defer")
    scripts[:] = [script for script in scripts if not _names(script, "thebe")]
    if body := context.get("body"):
        add_script(app, body)
        for part in (atlas_page, chapter_map, front):
            part.add_files(app, body)
        # what a fold is called is what stands on it
        body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
        body = _signatures_in_lines(body)
        if 'class="math ' not in body:
            # Sphinx gives it to every page above one with formulas in the contents too
            scripts[:] = [script for script in scripts if not _names(script, "mathjax")]
        # ARIA allows only list items in a list
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        # thebe's settings, left behind in the text of notebooks
        body = re.sub(r'<script type="text/x-thebe-config">.*?</script>', "", body, flags=re.S)
        body = re.sub(r"<script>kernelName = '[^']*'</script>", "", body)
        context["body"] = _pictures_when_needed(body)


def _signatures_in_lines(body: str) -> str:
    """Parameters of a long signature as lines: Sphinx makes them a list of descriptions of nothing."""

    def lines(found: re.Match) -> str:
        return re.sub(r"<dd>(.*?)</dd>\s*", r'<span class="sig-line">\1</span>', found[1], flags=re.S)

    return re.sub(r"\s*<dl>\s*((?:<dd>(?:(?!</?d[dtl]\b).)*</dd>\s*)+)</dl>\s*", lines, body, flags=re.S)


def _pictures_when_needed(body: str) -> str:
    """The first picture at once, those below it when they are scrolled to."""
    first, *rest = re.split(r"(?=<img )", body, maxsplit=2)
    late = re.sub(r"<img (?![^>]*\bloading=)", '<img loading="lazy" ', "".join(rest[1:]))
    return "".join([first, *rest[:1], late])


def _people(entry: Any) -> str:
    """Who wrote an entry, in short: one name, two names, or the first and "et al."."""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [" ".join([*person.prelast_names, *person.last_names]) for person in people]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names) or entry.fields.get("title", entry.key).strip("{}").split(":")[0]


def _prepare_entries(app: Any, env: Any) -> list[str]:
    """Before labels are made, in the text and in the list alike: "et al.", and 2025a and 2025b of the same people."""
    domain = env.get_domain("cite")
    cited = sorted({target.key for reference in domain.citation_refs for target in reference.targets})
    alike: dict[tuple[str, str], list[Any]] = {}
    for entry in (domain.bibdata.data.entries[key] for key in cited if key in domain.bibdata.data.entries):
        people = entry.persons.get("author", [])
        if len(people) > 1 and str(people[-1]) == "others":
            # pybtex takes BibTeX's "and others" for a person of that name
            del people[-1]
            people[-1].last_names[-1] += " et al."
        alike.setdefault((_people(entry), entry.fields.get("year", "")), []).append(entry)
    for (_, year), entries in alike.items():
        for letter, entry in zip(ascii_lowercase, entries if len(entries) > 1 else [], strict=False):
            entry.fields["year"] = f"{year}{letter}"
    return []


def _names(script: Any, word: str) -> bool:
    """Whether a word stands in what a script is, or in where it comes from."""
    return word in f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}".lower()
