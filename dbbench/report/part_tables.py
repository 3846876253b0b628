"""The peak by part of the network: what blocks divide, and what stands there whole however many there are.

Embedding, head and logits do not divide by the number of blocks, so that a peak may fall by less than its layers do.
The bytes are those of the instant of the peak, each of them in one part, and sum to the peak exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.document import Block, Bullets, Cell, Grid, Section, code, data, figure, name
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.run import Configuration, Run
from dbbench.results.holdings import held_at_peak
from dbbench.results.parts import PARTS, parts_at_peak
from dbbench.results.record import Record
from dbbench.results.roles import ROLES
from dbbench.results.store import SUMMED_BY_ROLE

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
    "number of blocks. A part has its parameters, gradients, "
    "optimizer state and all that was made in its modules; logits are the head's output with what softmax and "
    "cross-entropy make of it; everything else is in no module of these, as inputs, buffers, the embedding of the "
    "noise level, and what is added between two modules."
)
#: {part: {role: bytes}}
Parts = dict[str, dict[str, int]]


def parts_of(configuration: Configuration) -> tuple[Parts | None, str]:
    """Return the parts of a configuration's peak, None with the reason where they cannot be had.

    They are of the record, or of the trace where the record has its smaller holders summed by role alone.
    """
    record = configuration.costliest
    if record is None or record.row.peak_bytes is None:
        return None, "no peak was measured"
    held = record.held_at_peak
    if not held or record.unavailable.get("held_at_peak") == SUMMED_BY_ROLE:
        try:
            trace = configuration.folder.read_trace(record.row.config_hash)
            held = [] if trace is None else held_at_peak(trace).held
        except BadInput as problem:
            return None, str(problem)
        if not held:
            return None, "the record has its smaller holders summed by role, and there is no trace beside it"
    return _checked(record, parts_at_peak(held, record.row.peak_phase))


def _checked(record: Record, parts: Parts) -> tuple[Parts | None, str]:
    total = sum(sum(roles.values()) for roles in parts.values())
    if total != record.row.peak_bytes:
        return None, f"what is held sums to {total:,} bytes, the peak is {record.row.peak_bytes:,}"
    return parts, ""


def by_part(run: Run) -> Section | None:
    """Return a row a configuration with a peak, a column a part; None where no peak has layers."""
    pairs = [(c, *parts_of(c)) for c in run.configurations if c.finished]
    found = {c.label: parts for c, parts, _ in pairs if parts is not None}
    if not any(parts["layers"] for parts in found.values()):
        return None
    without = [f"{code(c.label)}: {data(reason)}" for c, parts, reason in pairs if parts is None]
    blocks: list[Block] = [_whole(run, found), NOTE]
    blocks += ["Not by part:", Bullets(without)] if without else []
    return Section(TITLE, blocks)


def by_part_and_role(run: Run) -> Section | None:
    """Return a row a part with its roles, in bytes, that sum to the peak; None where no peak has parts."""
    pairs = [(c.label, parts_of(c)[0]) for c in run.configurations if c.finished]
    found = {label: parts for label, parts in pairs if parts is not None}
    return Section(DETAIL_TITLE, [_detail(found)]) if any(parts["layers"] for parts in found.values()) else None


def shown_parts(found: Iterable[Parts]) -> list[str]:
    """Return the parts that hold a byte somewhere, in their order."""
    several = list(found)
    return [part for part in PARTS if any(parts[part] for parts in several)]


def layers_ratio(run: Run, configuration: Configuration) -> float | None:
    """Return the bytes of the layers over those of the reference's, None where either has none."""
    reference = run.reference(configuration)
    mine, _ = parts_of(configuration)
    theirs, _ = parts_of(reference) if reference else (None, "")
    if mine is None or theirs is None or not theirs["layers"]:
        return None
    return part_bytes(mine, "layers") / part_bytes(theirs, "layers")


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
        rows.append([*cells, figure(text.times, layers_ratio(run, configuration))])
    return Grid(header, rows)


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
