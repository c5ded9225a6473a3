"""The atlas on a page of the book: table, timeline and taxonomy, made from the data when the book is built."""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from pixelpolicy import atlas
from pixelpolicy.atlas.data import GROUNDWORK, Entry
from pixelpolicy.atlas.finding import plain, searched

FOLDER = "atlas"
LIBRARY, STYLE = f"{FOLDER}/dataTables.min.js", f"{FOLDER}/atlas.css"
PLACE, ORDERED = "data-atlas", "ordered"  # of the atlas's own table, and of any that its headings order
COLUMNS = ("Work", "Year", "Domain", "Family", "Role", "Reward", "Code", "In this course")
# Domains of the timeline, bottom first: their names and colours, each at least 3 to 1 on white and on the dark page.
BANDS = (
    ("foundation", "foundations", "#808080"), ("image", "image", "#0072B2"), ("video", "video", "#D55E00"),
    ("3d", "3D", "#009E73"), ("4d", "4D", "#AA7700"), ("cross", "several", "#B0609A"),
)  # fmt: skip
ROLE_COLOURS = {"fine-tuning": "#0072B2", "structural": "#D55E00", "groundwork": "#808080"}
FIRST_YEAR = 2013


def table(entries: list[Entry], book: Path) -> str:
    """The table of `entries` in HTML, newest first: whole without scripts, which add search, filters and order.

    `book` is the staged book, whose chapters cite and whose labs can be linked.
    """
    cited, labs = atlas.citing_chapters(book), atlas.numbered(book / "labs", "ipynb")
    rows = [_row(entry, cited.get(entry.key, []), labs) for entry in sorted(entries, key=lambda e: (-e.year, e.name))]
    kinds = {
        "Domain": atlas.DOMAINS, "Family": atlas.FAMILIES, "Role": atlas.ROLES,
        "Reward": (*atlas.REWARD_KINDS, "not stated"), "Code": ("with code", "without"),
        "In this course": ("can be run", "in a chapter"),
    }  # fmt: skip
    years = sorted({str(entry.year) for entry in entries}, reverse=True)
    filters = "".join(_choice(name, years if name == "Year" else kinds[name]) for name in COLUMNS[1:])
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    return (
        f'<div {PLACE}><form class="atlas-tools" role="search" aria-label="Search the atlas" hidden>'
        '<label class="atlas-words">Search <input type="search" autocomplete="off"></label>'
        f'{filters}<button type="reset">Clear</button><output role="status"></output></form>'
        '<div class="atlas-frame" role="region" aria-label="Table of works" tabindex="0">'
        '<table class="atlas-table"><caption>Works by year. Without JavaScript the whole table stands here.</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{''.join(rows)}</tbody></table></div></div>"
    )


def _choice(name: str, options: Any) -> str:
    """A filter: the column's name and what can be chosen."""
    listed = "".join(f'<option value="{escape(option)}">{escape(option)}</option>' for option in options)
    column = COLUMNS.index(name)
    return f'<label>{name} <select data-column="{column}"><option value="">all</option>{listed}</select></label>'


def _row(entry: Entry, chapters: list[str], labs: dict[str, str]) -> str:
    """A row: what is checked is printed, what is not is said to be so."""
    by = [entry.authors] if entry.authors_checked else ["authors unverified"]
    by += [entry.venue] if entry.venue_checked else ["venue unverified"] * bool(entry.venue)
    seen = "".join(
        f' <span class="atlas-unverified">{escape(text)}</span>'
        if "unverified" in text
        else f" {escape(text).rstrip('.')}."
        for text in by
    )
    link = entry.arxiv and f"arXiv {entry.arxiv}" or entry.doi and f"doi {entry.doi}" or entry.address and "page"
    read = f'<a href="{escape(entry.address)}">{escape(link)}</a>' if link else ""
    work = (
        f"<strong>{escape(entry.name)}</strong> <cite>{escape(entry.title)}</cite>"
        f'<span class="atlas-by">{seen} {read} <code>{entry.key}</code></span>'
        f'<span class="atlas-line">{escape(entry.one_line)}</span>'
    )
    code = f'<a href="{escape(entry.code)}" aria-label="Code of {escape(entry.name)}">code</a>' if entry.code else "–"
    ours = [
        f'<a href="labs/{labs[place[4:]]}.html">{place}</a>' if place[4:] in labs else f"<code>{place}</code>"
        for place in entry.places
        if not place.startswith("lab ") or place[4:] in labs
    ]
    runs = bool(ours)
    ours += [f'<a href="chapters/{chapter}.html">chapter {chapter[:2]}</a>' for chapter in chapters]
    kinds = "|".join(("", *entry.reward_kinds, ""))
    course = "|".join(("", *["can be run"] * runs, *["in a chapter"] * bool(chapters), ""))
    tried = " ".join([*entry.places, *chapters])
    words, name = escape(plain(searched(entry))), escape(plain(entry.name))
    with_code = "with code" if entry.code else "without"
    cells = [
        f'<th scope="row" data-search="{words}" data-order="{name}">{work}</th>',
        f'<td data-search="|{entry.year}|">{entry.year}</td>',
        *(f'<td data-search="|{value}|">{value}</td>' for value in (entry.domain, entry.family, entry.role)),
        f'<td data-search="{escape(kinds)}">{escape(entry.reward) or "–"}</td>',
        f'<td data-search="|{with_code}|" data-order="{int(not entry.code)}">{code}</td>',
        f'<td data-search="{course} {tried}" data-order="{-2 * runs - bool(chapters)}">{" ".join(ours) or "–"}</td>',
    ]
    return f'<tr id="{entry.key}">{"".join(cells)}</tr>\n'


def timeline(entries: list[Entry]) -> str:
    """An SVG of how many works of each year the atlas holds, by domain."""
    last = max(entry.year for entry in entries)
    years = [FIRST_YEAR - 1, *range(FIRST_YEAR, last + 1)]
    counts = Counter((max(entry.year, FIRST_YEAR - 1), entry.domain) for entry in entries)
    totals = {year: sum(counts[year, domain] for domain, *_ in BANDS) for year in years}
    step, high, left, top = 44, 220, 30, 46
    scale, base = high / max(totals.values()), top + high
    parts = [
        f'<text x="{left + place * 105}" y="14"><tspan fill="{colour}">■</tspan> {name}</text>'
        for place, (_, name, colour) in enumerate(BANDS)
    ]
    for place, year in enumerate(years):
        x, y = left + place * step, float(base)
        for domain, _, colour in BANDS:
            tall = counts[year, domain] * scale
            y -= tall
            parts.append(
                f'<rect x="{x}" y="{y:.1f}" width="{step - 10}" height="{tall:.1f}" fill="{colour}"/>' * bool(tall)
            )
        parts.append(f'<text x="{x + 17}" y="{y - 5:.1f}" text-anchor="middle">{totals[year]}</text>')
        label = f"≤ {year}" if year < FIRST_YEAR else str(year)
        parts.append(f'<text x="{x + 17}" y="{base + 18}" text-anchor="middle">{label}</text>')
    told = "; ".join(f"{'to ' * (year < FIRST_YEAR)}{year}: {totals[year]}" for year in years)
    alt = f"Bars: works in this atlas by the year they were first posted, in bands by domain. {told}."
    return _figure("".join(parts), left + len(years) * step, base + 28, alt, (
        "What this atlas holds, by the year of the first posting. It is a choice, not a census: the last year is not "
        "over, and the gathering looked for visual generation."
    ))  # fmt: skip


def taxonomy(entries: list[Entry]) -> str:
    """An SVG of three axes: families down, in their roles; domains across; a disc for the works that share both."""
    counts = Counter((entry.family, entry.domain) for entry in entries)
    roles = {(entry.family, entry.domain): entry.role for entry in entries}
    groups = {
        "structural": ("structural",),
        "groundwork": GROUNDWORK,
        "fine-tuning": tuple(f for f in atlas.FAMILIES if f != "structural" and f not in GROUNDWORK),
    }
    order = [(role, family) for role in ("fine-tuning", "structural", "groundwork") for family in groups[role]]
    left, top, wide, tall = 190, 40, 92, 38
    size = 16 / max(counts.values()) ** 0.5
    parts = [
        f'<text x="{left + wide * (place + 0.5)}" y="24" text-anchor="middle">{name}</text>'
        for place, (_, name, _) in enumerate(BANDS)
    ]
    for line, (role, family) in enumerate(order):
        y = top + tall * line + tall / 2
        if line == 0 or order[line - 1][0] != role:
            rule = y - tall / 2
            parts.append(f'<line x1="0" x2="{left + wide * len(BANDS)}" y1="{rule}" y2="{rule}" class="atlas-rule"/>')
            parts.append(f'<text x="4" y="{y + 4}" class="atlas-role">{role}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{family}</text>')
        for place, (domain, *_) in enumerate(BANDS):
            if count := counts[family, domain]:
                colour = ROLE_COLOURS[roles[family, domain]]
                x, radius = left + wide * (place + 0.5) - 10, size * count**0.5
                parts.append(f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{colour}"/>')
                parts.append(f'<text x="{x + radius + 5:.1f}" y="{y + 4}">{count}</text>')
    sums = Counter(entry.family for entry in entries)
    told = "; ".join(f"{role}: " + ", ".join(f"{f} {sums[f]}" for f in groups[role]) for role in ROLE_COLOURS)
    alt = (
        f"A grid of discs: families of method down, in three roles; domains across; a disc's area counts works. {told}."
    )
    return _figure("".join(parts), left + wide * len(BANDS), top + tall * len(order) + 6, alt, (
        "Three axes: the domain across, the family down, the role of learning by reward at the left. Blue discs are "
        "fine-tuning, orange ones structural, grey ones groundwork: so are the foundations, whatever their family."
    )) + _counts(counts, order)  # fmt: skip


def _counts(counts: Counter, order: list[tuple[str, str]]) -> str:
    """The taxonomy as a table whose numbers lead to the works."""
    head = "".join(f'<th scope="col">{name}</th>' for _, name, _ in BANDS)
    lines = "".join(
        f'<tr><th scope="row">{family}</th>'
        + "".join(
            f'<td><a href="#family={family}&amp;domain={domain}" aria-label="{n} of {family}, {name}">{n}</a></td>'
            if (n := counts[family, domain])
            else "<td>–</td>"
            for domain, name, _ in BANDS
        )
        + "</tr>"
        for _, family in order
    )
    return (
        "<details><summary>The same as a table; a number leads to its works</summary>"
        f'<div class="atlas-frame" role="region" aria-label="Works by family and domain" tabindex="0"><table>'
        f'<thead><tr><th scope="col">family</th>{head}</tr></thead><tbody>{lines}</tbody></table></div></details>'
    )


def _figure(body: str, width: int, height: int, alt: str, caption: str) -> str:
    return (
        f'<figure class="atlas-figure"><div class="atlas-frame" role="region" aria-label="Figure" tabindex="0">'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(alt)}">{body}</svg></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


class AtlasHere(Directive):
    """`{atlas} table`, `{atlas} timeline`, `{atlas} taxonomy`: this part of the atlas stands here."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The part as HTML; the page is made anew whenever the book is."""
        part, entries = self.arguments[0], atlas.load()
        if part == "count":
            return [nodes.paragraph("", _summary(entries))]
        if part not in ("table", "timeline", "taxonomy"):
            raise self.error(f"there is no part {part!r} of the atlas; expected table, timeline, taxonomy or count")
        folder = Path(self.state.document.settings.env.srcdir)
        made = (
            table(entries, folder) if part == "table" else {"timeline": timeline, "taxonomy": taxonomy}[part](entries)
        )
        return [nodes.raw("", made, format="html")]


def _summary(entries: list[Entry]) -> str:
    """What is known of the entries, in a sentence."""
    return (
        f"The atlas holds {len(entries)} works. {sum(bool(e.arxiv or e.doi) for e in entries)} have an arXiv id or a "
        f"DOI that was seen beside their title; of {sum(e.authors_checked for e in entries)} the first author was "
        f"checked, of {sum(e.venue_checked for e in entries)} the venue. The ideas of "
        f"{sum(bool(e.places) for e in entries)} can be run in a lab or by the library."
    )


def add_files(app: Any, body: str) -> None:
    """Let a page whose text has such a table or figure load what it needs."""
    ordered = re.search(rf'<table class="[^"]*\b{ORDERED}\b', body)
    if PLACE in body or ordered or "atlas-figure" in body:
        app.add_css_file(STYLE, priority=810)
        scripts = [LIBRARY, *[f"{FOLDER}/atlas.js"] * (PLACE in body), *[f"{FOLDER}/ordered.js"] * bool(ordered)]
        for place, script in enumerate(scripts):
            app.add_js_file(script, priority=810 + place, defer="defer")
