"""The peak by part of the network: what blocks divide, and what stands there whole however many there are.

Embedding, head and logits do not divide by the number of blocks, so that a peak may fall by less than its layers do.
The bytes are those of the instant of the peak, each of them in one part, and sum to the peak exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dbbench.report import text
from dbbench.report.document import Block, Bullets, Cell, Grid, Section, code, data, figure, name
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.run import Configuration, Parts, Run
from dbbench.results.parts import PARTS
from dbbench.results.roles import ROLES

TITLE = "Memory at the peak, by part of the network, MiB"
DETAIL_TITLE = "Each part of the peak, by role"
PART_NAMES = {
    "layers": "layers",
    "outer_layers": "prelude and coda",
    "embedding": "embedding",
    "head": "head",
    "logits": "logits",
    "rest": "everything else",
}
NOTE = (
    "At the instant of the peak, as the roles above: a row sums to its peak to the byte, and a part that is not there "
    "may be at another instant. Blocks divide the layers alone; embedding, head and logits are there whole for any "
    "number of blocks. A part has its parameters, gradients, optimizer state and all that was made in its modules; "
    "logits are the head's output with what softmax and cross-entropy make of it; everything else is in no module of "
    "these, as inputs, buffers, the embedding of the noise level, and what is added between two modules."
)


def by_part(run: Run) -> Section | None:
    """Return a row a configuration with a peak, a column a part; None where no peak has layers."""
    found = parts_by_label(run)
    if not any(parts["layers"] for parts in found.values()):
        return None
    lost = [c for c in run.configurations if c.finished and c.label not in found]
    without = [f"{code(c.label)}: {data(c.parts[1])}" for c in lost]
    blocks: list[Block] = [_whole(run, found), NOTE]
    blocks += ["Not by part:", Bullets(without)] if without else []
    return Section(TITLE, blocks)


def by_part_and_role(run: Run) -> Section | None:
    """Return a row a part with its roles, in bytes, that sum to the peak; None where no peak has parts."""
    found = parts_by_label(run)
    return Section(DETAIL_TITLE, [_detail(found)]) if any(parts["layers"] for parts in found.values()) else None


def shown_parts(found: Iterable[Parts]) -> list[str]:
    """Return the parts that hold a byte somewhere, in their order."""
    several = list(found)
    return [part for part in PARTS if any(parts[part] for parts in several)]


def parts_by_label(run: Run) -> dict[str, Parts]:
    """Return the parts of each configuration that finished and has them."""
    return {c.label: parts for c in run.configurations if c.finished and (parts := c.parts[0]) is not None}


def part_bytes(parts: Parts, part: str) -> int:
    """Return the bytes of a part over all roles."""
    return sum(parts[part].values())


def _whole(run: Run, found: dict[str, Parts]) -> Grid:
    shown = shown_parts(found.values())
    header = ["variant", "blocks", "peak MiB", *(PART_NAMES[part] for part in shown), "layers × backprop"]
    rows = []
    for label, parts in found.items():
        configuration = run.configuration(label)
        assert configuration.costliest is not None
        row = configuration.costliest.row
        cells = [name(label), figure(text.whole, row.blocks), figure(text.mib, row.peak_bytes)]
        cells += [figure(text.mib, part_bytes(parts, part)) for part in shown]
        rows.append([*cells, figure(text.times, _layers_ratio(run, configuration))])
    return Grid(header, rows)


def _layers_ratio(run: Run, configuration: Configuration) -> float | None:
    """Return the bytes of the layers over those of the reference's, None where either has none."""
    reference = run.reference(configuration)
    mine, theirs = configuration.parts[0], reference.parts[0] if reference else None
    if not mine or not theirs or not theirs["layers"]:
        return None
    return part_bytes(mine, "layers") / part_bytes(theirs, "layers")


def _detail(found: dict[str, Parts]) -> Grid:
    """Exact bytes, a row a part that holds any, its roles across; a variant's last row is its peak."""
    roles = [role for role in ROLES if any(role in of for parts in found.values() for of in parts.values())]
    header = ["variant", "part", "bytes", *(ROLE_NAMES[role] for role in roles)]
    rows = []
    for label, parts in found.items():
        sums = dict.fromkeys(roles, 0)
        for part, sizes in parts.items():
            for role, size in sizes.items():
                sums[role] += size
            if sizes:
                rows.append(_detail_row(label, PART_NAMES[part], sizes, roles))
        rows.append(_detail_row(label, "peak", sums, roles))
    return Grid(header, rows, left=2, folded=f"Exact bytes of {len(found):,} variants")


def _detail_row(label: str, part: str, sizes: Mapping[str, int], roles: Sequence[str]) -> list[Cell]:
    cells = [figure(text.whole, sizes.get(role, 0)) for role in roles]
    return [name(label), Cell(part), figure(text.whole, sum(sizes.values())), *cells]
