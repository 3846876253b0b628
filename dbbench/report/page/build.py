"""Builds the page: everything it shows is computed here or in the rooms that ``summary.md`` takes it from.

The same folders give the same bytes: there is no date, no random id and no path of the machine in it. Without a traced
step it carries no charting library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from dbbench.files import write_atomically
from dbbench.report import part_tables, sample_texts, sections, tables, text, ways
from dbbench.report.document import Bullets
from dbbench.report.figure_style import evenly
from dbbench.report.figures import Figures
from dbbench.report.page.between import between
from dbbench.report.page.drawings import drawings
from dbbench.report.page.library import Library, plotly_js, policy_source
from dbbench.report.page.markup import LINES, ROWS, ListView, SectionView, block_view, inline, safe_json, section_view
from dbbench.report.page.timelines import TIMELINES, choose, payload
from dbbench.report.page.trees import NODES, Node, trees
from dbbench.report.palette import ROLE_FILLS, ROLE_NAMES
from dbbench.report.run import Run
from dbbench.report.together import run_names, together
from dbbench.report.verdict import bullets, verdict
from dbbench.results.roles import ROLES

#: Tables of words, which nobody sorts.
_UNSORTED = ("Definitions", "Where these figures come from")
_CAPTIONS = {
    sections.FIRST_TITLE: "× backprop is relative to backprop on the same network; speed is paired.",
    "Result and cost": "Mean ± sd over n seeds, and cost; × backprop is relative to backprop on the same network.",
    "Memory at the peak of a training step, MiB": "Live tensor bytes at the peak by role; the roles sum to the peak.",
    "Cells that did not finish": "A row for each cell that did not finish, with its error and its log.",
    "Budget": "What was made equal for each variant, and what that left unequal.",
    ways.TITLE: "By way of predicting, and the other figures of the method's own; a dash: there is no such way.",
    part_tables.TITLE: "The bytes at the peak by part of the network; the parts sum to the peak.",
    part_tables.DETAIL_TITLE: "Exact bytes of each part at the peak; those of a variant sum to its peak.",
    sample_texts.TITLE: "What each variant writes on from the prompt.",
    "Set-up of each variant": "Method, residency, optimizer and shared parts of each variant.",
    "Other metrics, and other ways of predicting": "On the same split as the headline.",
    "Inference, device and energy": "Of one prediction, by the device's own account, and of the whole training.",
    "Retained and other, by holder": "What is retained or other at each variant's peak, by the name that holds it.",
    "Definitions": "The words of this report.",
    "Where these figures come from": "Environment, data, tuning and seeds.",
}
#: A page has 5 MB for everything, 2 MB of it the charting library; trees have what figures, timelines and tables leave.
_PAGE_BYTES, _FIGURES_BYTES = 4_900_000, 1_500_000
#: What the tables take: in any case, a row of each of them, and a node of a tree.
_TABLES_BYTES, _ROW_BYTES, _NODE_BYTES = 150_000, 4_400, 300


@dataclass(frozen=True)
class VerdictView:
    """What one run shows; ``name`` is '' where the page is of one run."""

    name: str
    sentences: Markup
    unfinished: Markup
    each: ListView
    note: Markup


def write_page(path: Path, runs: Sequence[Run], figures: Figures | None = None) -> None:
    """Write the page of ``runs``, one or several, to ``path``. Their figures stand side by side, ratios within each.

    ``figures`` are those of their comparison where the caller has them: what is drawn of them is not drawn again.
    """
    write_atomically(path, page_html(runs, figures).encode("utf-8"))


def page_html(runs: Sequence[Run], figures: Figures | None = None) -> str:
    """Return the page of ``runs``: one HTML document that asks for nothing else."""
    names = _names(runs)
    whole = together(runs)
    figures = Figures(whole, tables.comparison(whole)) if figures is None else figures
    table = figures.table
    own = [table] if len(runs) == 1 else [tables.comparison(run) for run in runs]
    shown = table.iloc[evenly(range(len(table)), ROWS)]
    part = _only(whole, set(shown["variant"]))
    timelines = choose(runs, names)
    library = plotly_js() if timelines.chosen else Library("", "")
    data = safe_json(payload(timelines.chosen)) if timelines.chosen else Markup()
    images = drawings(figures, _FIGURES_BYTES)
    spent = len(library.packed) + len(data) + sum(one.size for one in images)
    spent += _TABLES_BYTES + _ROW_BYTES * len(shown)
    held = trees(runs, names, timelines.chosen, min(NODES, (_PAGE_BYTES - spent) // _NODE_BYTES))
    script = _file("page.js") + (_file("timeline.js") if timelines.chosen else "")
    above, below = (list(map(_section_view, half)) for half in sections.of_report(part, shown, whole))
    roles = {role for tree in held.trees for role in tree.root.roles}
    return _template().render(
        title=_title(runs, names),
        style=Markup(_file("page.css") + _role_colours()),
        script=Markup(script),
        policy=f"{policy_source(script.encode())} {library.policy_source}".strip(),
        verdicts=[_verdict_view(*one, i) for i, one in enumerate(zip(runs, names, own, strict=True))],
        sampled=f"{len(shown):,} of {len(table):,}" if len(shown) < len(table) else "",
        between=_between_views(runs, names),
        above=above,
        figures=images,
        timeline=data,
        timelines=timelines,
        timelines_most=TIMELINES,
        library=library.packed,
        held=held,
        roles=[(role, ROLE_NAMES[role]) for role in ROLES if role in roles],
        below=below,
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what the page calls each run, '' for one alone."""
    return run_names(runs) if len(runs) > 1 else [""]


def _between_views(runs: Sequence[Run], names: Sequence[str]) -> list[SectionView]:
    pairs = between(runs, names) if len(runs) > 1 else []
    return [section_view(pair, f"between-{i}", f"{pair.title}, figure by figure.") for i, pair in enumerate(pairs)]


def _only(run: Run, labels: set[str]) -> Run:
    return replace(run, configurations=[c for c in run.configurations if c.label in labels])


def _title(runs: Sequence[Run], names: Sequence[str]) -> str:
    named = [text.printable(name or run.name) for run, name in zip(runs, names, strict=True)]
    return f"{', '.join(named)}: what training costs and what it learns"


def _verdict_view(run: Run, name: str, own: pd.DataFrame, place: int) -> VerdictView:
    each = bullets(run, own.iloc[evenly(range(len(own)), LINES)])
    listed = block_view(Bullets(each), f"each-{place}", "")
    assert isinstance(listed, ListView)
    said = (verdict(run, own), sections.unfinished(run), sections.note_on_tests(each))
    sentences, unfinished, note = map(inline, said)
    return VerdictView(text.printable(name), sentences, unfinished, listed, note)


def _section_view(section: sections.Section) -> SectionView:
    name = re.sub("[^a-z]+", "-", section.title.lower()).strip("-")
    caption = _CAPTIONS.get(section.title, section.title)
    return section_view(section, name, caption, sortable=section.title not in _UNSORTED)


def _file(name: str) -> str:
    return (resources.files(__package__) / "files" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sized": sized, "share": _share, "code_list": _code_list, "widths": _widths}
    return environment.get_template("page.html.j2")


def sized(size_bytes: int) -> str:
    """Bytes in the unit that keeps them readable: MiB, KiB or B."""
    if size_bytes >= 2**20 / 10:
        return f"{size_bytes / 2**20:,.2f} MiB"
    return f"{size_bytes / 2**10:,.1f} KiB" if size_bytes >= 2**10 else f"{size_bytes} B"


def _role_colours() -> str:
    return "".join(f".role-{role} {{ background: {fill.color}; }}\n" for role, fill in ROLE_FILLS.items())


def _widths(node: Node, total: int) -> list[tuple[str, str]]:
    """Return each role's share of a bar in per cent, as far as it can be seen."""
    shares = ((role, 100 * size / total) for role, size in node.roles.items() if total)
    return [(role, f"{share:.1f}") for role, share in shares if share >= 0.5]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else text.MISSING


def _code_list(labels: Sequence[str]) -> Markup:
    return inline(sections.codes(list(labels)))
