"""What fits, as tables and a page: how each variant is called beside the others of its network, and where it ends."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.table import Table

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.results.fit import FIT_FILE, Fit, FitEdge, FitLine
from dbbench.results.store import to_csv, to_json

GIB = 2**30
AXIS_UNITS = {"batch": "samples a step", "depth": "layers", "sequence": "tokens a sequence"}
NOTHING = "does not fit"
#: By what `Fit.predicts` says.
_PREDICTION = {True: "fits too", False: NOTHING, None: text.MISSING}


def memory_name(size_bytes: int) -> str:
    """``24 GiB``, and MiB for what is less than one."""
    return f"{size_bytes / GIB:g} GiB" if size_bytes >= GIB else f"{size_bytes / 2**20:g} MiB"


def preset_name(line: FitLine) -> str:
    """The network as a row is called: ``dit XL/2``."""
    return f"{line.network} {line.network_size}"


def techniques(fit: Fit) -> list[str]:
    """Return, for each line, what its variant is called among those of its network.

    It is the method, with the values of those options behind it that tell two variants of a network and method apart:
    a suite may call them anything, and the same technique must be one colour in all rows. Where that does not tell
    them apart, it is the variant's label.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, line in enumerate(fit.lines):
        groups[preset_name(line), line.method].append(i)
    names: dict[int, str] = {}
    for (_, method), members in groups.items():
        options = [{**fit.lines[i].options, "residency": fit.lines[i].residency} for i in members]
        keys = [k for k in dict.fromkeys(k for o in options for k in o) if len({repr(o.get(k)) for o in options}) > 1]
        for i, mine in zip(members, options, strict=True):
            names[i] = ", ".join([method, *(f"{k} {mine[k]}" for k in keys if mine.get(k) is not None)])
        if len({names[i] for i in members}) < len(members):
            names |= {i: fit.lines[i].variant for i in members}
    return [names[i] for i in range(len(fit.lines))]


def _largest(edge: FitEdge) -> str:
    if edge.largest is None:
        return NOTHING
    return ("at least " if edge.following is None else "") + f"{edge.largest:,}"


def overview(fit: Fit, memory: int) -> tuple[list[str], list[list[str]]]:
    """Return a header and a row for each network, a column for each technique: the largest value and its ratio."""
    names = techniques(fit)
    columns = list(dict.fromkeys(names))
    rows: dict[str, dict[str, str]] = {}
    for name, line in zip(names, fit.lines, strict=True):
        ratio = fit.ratio(line, memory)
        shown = _largest(line.edges[memory])
        shown += f" ({ratio:.3g}×)" if ratio is not None and line.method != "backprop" else ""
        rows.setdefault(preset_name(line), {})[name] = shown
    cells = [[preset, *(row.get(name, text.MISSING) for name in columns)] for preset, row in rows.items()]
    return ["network", *columns], cells


def edges(fit: Fit) -> tuple[list[str], list[list[str]]]:
    """Return a header and a row for each variant and memory: what both sides of its edge take, in GiB."""
    header = ["network", "variant", "memory", f"largest {fit.axis}", "of backprop's", "peak there", "reserved there"]
    header += ["peak at the next", "reserved at the next"]
    header += ["prediction there"] if fit.prediction == "beside" else []
    header += ["not monotone", "values probed"]
    rows = []
    for line in fit.lines:
        for memory, edge in enumerate(line.edges):
            sides = [line.probe(edge.largest), line.probe(edge.following)]
            sizes = [_gib(getattr(side, figure, None)) for side in sides for figure in ("peak_bytes", "reserved_bytes")]
            gaps = f"{', '.join(map(str, edge.gaps))} do not fit" if edge.gaps else ""
            row = [preset_name(line), line.variant, memory_name(fit.memories_bytes[memory]), _largest(edge)]
            row += [text.times(fit.ratio(line, memory)), *sizes]
            row += [_PREDICTION[fit.predicts(line, memory)]] if fit.prediction == "beside" else []
            rows.append([*row, gaps, str(len(line.probes))])
    return header, rows


def _gib(size_bytes: int | None) -> str:
    return text.MISSING if size_bytes is None else f"{size_bytes / GIB:.2f}"


def rich_tables(fit: Fit) -> list[Table]:
    """Return what a terminal shows: an overview for each memory, and the edges with what stands on both sides."""
    tables = []
    for memory, size in enumerate(fit.memories_bytes):
        header, rows = overview(fit, memory)
        tables.append(_rich(f"largest {fit.axis} in {memory_name(size)}", header, rows, left=1))
    header, rows = edges(fit)
    return [*tables, _rich("both sides of each edge, GiB", header, rows, left=2)]


def _rich(title: str, header: list[str], rows: list[list[str]], left: int) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def method_of_search(fit: Fit) -> str:
    """Return in words what "fits" means here and what was looked at."""
    memories = ", ".join(memory_name(size) for size in fit.memories_bytes)
    settings = text.code(fit.allocator) if fit.allocator else "its default settings"
    probes = [len(line.probes) for line in fit.lines]
    return " ".join(
        [
            f"The largest {fit.axis} ({AXIS_UNITS[fit.axis]}, at most {fit.highest:,}) with which training "
            f"steps{_and_prediction(fit)} fit in {memories}, on fake tensors: torch's caching "
            f"allocator with {settings}, simulated with the memory less {memory_name(fit.headroom_bytes)} for the "
            f"context and libraries, never runs out. {_of_predictions(fit)}",
            "Peaks are of live tensors; reserved is what the allocator takes where it has no end, so it may be above "
            "the memory where giving the cache back still lets a step fit.",
            "Of every edge both sides were estimated: the value fits, the next does not. So were up to three values "
            "above each edge, for an island of larger ones that fit; none can lie where the live tensors alone are "
            "more than the memory.",
            f"{sum(probes):,} estimates in all, {min(probes, default=0)} to {max(probes, default=0)} a variant.",
            _monotone(fit),
        ]
    )


def _and_prediction(fit: Fit) -> str:
    return "" if fit.prediction == "beside" else ", and then a prediction on a batch as large,"


def _of_predictions(fit: Fit) -> str:
    """Say what a prediction on as large a batch has to do with the edges."""
    why = "keeps several distributions over a vocabulary (greedy's heads, DiffusionBlocks' chain)"
    if fit.prediction == "decides":
        return f"Where a prediction {why} it may be what decides."
    edges = [(line, memory) for line in fit.lines for memory in range(len(line.edges))]
    short = [(line, memory) for line, memory in edges if fit.predicts(line, memory) is False]
    opening = "A prediction on a batch as large decides nothing:"
    if not short:
        return f"{opening} it fits too at every edge."
    told = (f"{text.code(line.variant)} in {memory_name(fit.memories_bytes[memory])}" for line, memory in short)
    return f"{opening} it fits too at every edge but those of {', '.join(told)}; one that {why} needs a smaller batch."


def _monotone(fit: Fit) -> str:
    islands = [(line, edge) for line in fit.lines for edge in line.edges if edge.gaps]
    if not islands:
        return "Everything probed is monotone: no value fits above one that does not."
    told = (
        f"{text.code(line.variant)} fits at {edge.largest:,} but not at {', '.join(f'{g:,}' for g in edge.gaps)}"
        for line, edge in islands
    )
    return "Not monotone: " + "; ".join(told) + "."


def markdown(fit: Fit, figure: bool = False) -> str:
    """Return the page; with ``figure`` it shows ``figures/fit.png`` beside it."""
    parts = [f"# The largest {fit.axis} that fits", method_of_search(fit)]
    if fit.failed:
        lines = (f"- not estimated: {text.code(v)} {text.escaped(why)}" for v, why in fit.failed.items())
        parts.append("\n".join(lines))
    if figure:
        caption = (
            "A mark is the largest value that fits; a hollow one does not fit at all. Beside the largest of a network "
            "stands its ratio to backprop's. ([PDF](figures/fit.pdf))"
        )
        parts.append(f"![what fits](figures/fit.png)\n\n{caption}")
    for memory, size in enumerate(fit.memories_bytes):
        header, rows = overview(fit, memory)
        escaped = [[text.escaped(cell) for cell in row] for row in rows]
        parts += [f"## {memory_name(size)}", text.markdown_table(header, escaped)]
    header, rows = edges(fit)
    cells = [[text.escaped(row[0]), text.code(row[1]), *row[2:]] for row in rows]
    parts += ["## Both sides of each edge, GiB", text.markdown_table(header, cells, left=2)]
    parts.append(f"torch {fit.torch_version}, dbbench {fit.dbbench_version}.")
    return "\n\n".join(parts) + "\n"


def write_fit(folder: Path, fit: Fit) -> None:
    """Write ``fit.json``, ``fit.csv``, ``fit.md`` and ``figures/fit`` (at both widths),
    into ``folder``, which is made."""
    from dbbench.report.figure_fit import draw
    from dbbench.report.figure_style import WIDTHS, page, save

    write_atomically(folder / FIT_FILE, to_json(fit))
    write_atomically(folder / "fit.csv", to_csv(fit.frame()))
    if fit.lines:
        for ending, width_inches in WIDTHS.items():
            with page():
                save(draw(fit, width_inches), folder / "figures" / f"fit{ending}")
    write_atomically(folder / "fit.md", markdown(fit, figure=bool(fit.lines)).encode())
