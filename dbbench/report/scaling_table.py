"""How memory grows, as tables and a page: exponents by role and variant, the lines behind them, and claims tested."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.report.claims_scalings import Tested, claims_tested, exponent
from dbbench.results.scaling import LAYERS_OWN_PEAKS, QUANTITIES, SCALING_FILE, PowerLaw, Scaling
from dbbench.results.store import to_csv, to_json

MIB = 2**20


def quantity_name(quantity: str) -> str:
    """What a table calls a quantity: ``activations, layers only``."""
    name = quantity.removesuffix("_bytes").removesuffix("_own_peak").replace("_", " ")
    name = name.replace("state", "parameters + gradients + optimizer")
    return f"{name.removeprefix('layers ')}, layers only" if quantity in LAYERS_OWN_PEAKS else name


def exponents(scaling: Scaling) -> tuple[list[str], list[list[str]]]:
    """Return a header and a row for each quantity that any variant holds, with the exponent of each that varies."""
    lines = [line for line in scaling.lines if line.varies]
    shown = [q for q in QUANTITIES if any(line.law(q) for line in lines)]
    rows = [[quantity_name(q), *(_law(line.law(q)) for line in lines)] for q in shown]
    return [f"exponent over {scaling.axis}", *(line.variant for line in lines)], rows


def straight_lines(scaling: Scaling) -> tuple[list[str], list[list[str]]]:
    """Return a header and rows as `exponents`: fixed part + part a unit in MiB, and how far a point is off the line."""
    lines = [line for line in scaling.lines if line.varies]
    shown = [q for q in QUANTITIES if any((law := line.law(q)) and law.fixed_bytes is not None for line in lines)]
    rows = [[quantity_name(q), *(_line(line.law(q)) for line in lines)] for q in shown]
    return [f"MiB, fixed + a unit of {scaling.axis}", *(line.variant for line in lines)], rows


def points(scaling: Scaling, quantity: str) -> tuple[list[str], list[list[str]]]:
    """Return a header of values and a row for each variant: the quantity in MiB."""
    values = sorted({value for line in scaling.lines for value, _ in line.series(quantity)})
    rows = []
    for line in scaling.lines:
        sizes = dict(line.series(quantity))
        rows.append([line.variant, *(text.mib(sizes.get(value)) for value in values)])
    return [f"{quantity_name(quantity)}, MiB", *(f"{value:,}" for value in values)], rows


def _law(law: PowerLaw | None) -> str:
    return text.MISSING if law is None else exponent(law)


def _line(law: PowerLaw | None) -> str:
    if law is None or law.fixed_bytes is None or law.bytes_per_unit is None or law.off_line is None:
        return text.MISSING
    off = f" (off by {100 * law.off_line:.0f} %)" if law.off_line >= 0.005 else ""
    return f"{law.fixed_bytes / MIB:,.1f} + {law.bytes_per_unit / MIB:,.2f}{off}"


def rich_tables(scaling: Scaling) -> list[Table]:
    """Return what a terminal shows: the exponents, and the claims that the scaling tests."""
    header, rows = exponents(scaling)
    tables = [_rich(header, rows, left=1)]
    tested = claims_tested(scaling)
    if tested:
        cells = [[t.claim.id, measured.replace("`", ""), t.verdict] for t in tested for measured in _shown(t)]
        tables.append(_rich(["claim", "measured", "verdict"], cells, left=3))
    return tables


def _rich(header: list[str], rows: list[list[str]], left: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _shown(tested: Tested) -> list[str]:
    several = len(tested.measured) > 1
    return [m.shown + (f" ({'holds' if m.holds else 'fails'})" if several else "") for m in tested.measured]


def markdown(scaling: Scaling, figure: bool = False) -> str:
    """Return the page; with ``figure`` it shows ``figures/scaling.png`` beside it."""
    networks = dict.fromkeys(f"{line.network} {line.network_size}, {line.precision}" for line in scaling.lines)
    values = ", ".join(f"{value:,}" for value in scaling.values)
    parts = [
        f"# {text.escaped(scaling.suite)}: memory over {scaling.axis}",
        f"{text.escaped('; '.join(networks))}; {scaling.axis} {values}, on fake tensors. An exponent a is of "
        "bytes = c · value^a, by least squares of the logarithms, with its standard error. Roles are their own peaks; "
        "*layers only* counts what was made inside the layers, so embedding and head are left out. Allocated and "
        "reserved are of torch's caching allocator, simulated with its default settings.",
    ]
    if scaling.failed:
        lines = (f"- not estimated: {text.code(v)} {text.escaped(why)}" for v, why in scaling.failed.items())
        parts.append("\n".join(lines))
    tested = claims_tested(scaling)
    if tested:
        cells = [
            [f"{text.code(t.claim.id)} {text.escaped(t.claim.claim)}", text.escaped(t.claim.source),
             "<br>".join(_shown(t)), t.verdict]
            for t in tested
        ]  # fmt: skip
        parts += ["## Claims tested", text.markdown_table(["claim", "source", "measured", "verdict"], cells, left=4)]
    if figure:
        parts.append(
            f"![memory over {scaling.axis}](figures/scaling.png)\n\nEach line's number is its fitted exponent. "
            "([PDF](figures/scaling.pdf))"
        )
    parts += ["## Exponents", text.markdown_table(*_escaped(exponents(scaling)))]
    header, rows = straight_lines(scaling)
    if rows:
        note = "Where a point is off the line by half a per cent or more, the largest distance stands beside it."
        parts += ["## Straight lines", note, text.markdown_table(*_escaped((header, rows)))]
    parts.append("## Points")
    for quantity in ("peak_bytes", "activations_own_peak_bytes", "state_own_peak_bytes"):
        parts.append(text.markdown_table(*_escaped(points(scaling, quantity))))
    parts.append(f"All quantities: `points.csv`. torch {scaling.torch_version}, dbbench {scaling.dbbench_version}.")
    return "\n\n".join(parts) + "\n"


def _escaped(table: tuple[list[str], list[list[str]]]) -> tuple[list[str], list[list[str]]]:
    header, rows = table
    return [text.escaped(name) for name in header], [[text.escaped(cell) for cell in row] for row in rows]


def write_scaling(folder: Path, scaling: Scaling) -> None:
    """Write ``scaling.json``, ``points.csv``, ``exponents.csv``, ``scaling.md``, ``figures/scaling`` at two widths.

    ``folder`` is made where it is missing.
    """
    from dbbench.report.figure_scaling import draw
    from dbbench.report.figure_style import WIDTHS, page, save

    write_atomically(folder / SCALING_FILE, to_json(scaling))
    for name, frame in (("points", scaling.points_frame()), ("exponents", scaling.laws_frame())):
        write_atomically(folder / f"{name}.csv", to_csv(frame))
    if scaling.lines:
        for ending, width_inches in WIDTHS.items():
            with page():
                save(draw(scaling, width_inches), folder / "figures" / f"scaling{ending}")
    write_atomically(folder / "scaling.md", markdown(scaling, figure=bool(scaling.lines)).encode())
