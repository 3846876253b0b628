"""The largest value with which each variant fits in a memory: a search over estimates, replayed under that memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from dbbench.errors import BadInput
from dbbench.estimate.axis import Dial, dial, labelled, lowest
from dbbench.estimate.pool import Workers
from dbbench.estimate.search import Probe, Search
from dbbench.harness.provenance import dbbench_version
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import Estimate
from dbbench.results.fit import Fit, FitEdge, FitLine, FitProbe, SearchAxis
from dbbench.suite.cell import Cell

#: By axis: the second value probed, far enough from the first for a slope, and the largest where the user gives none.
#: A probe takes as long at any batch or length, but not at any depth.
_SECOND = {"batch": 64, "depth": 8, "sequence": 1024}
HIGHEST = {"batch": 65_536, "depth": 512, "sequence": 1_048_576}
#: Called with how many probes are done, and how many are asked for so far.
Progress = Callable[[int, int], None]


class _Variant:
    """A variant in the search: its dial, what it was found to need, and what to probe next."""

    def __init__(self, label: str, cell: Cell, turning: Dial, search: Search) -> None:
        self.label, self.cell, self.dial, self.search = label, cell, turning, search
        self.probes: dict[int, FitProbe] = {}
        self.estimate: Estimate | None = None

    def take(self, value: int, estimate: Estimate) -> None:
        """Note a probe: its first figures are of an allocator without end, the others of each memory."""
        endless, *within = estimate.allocators
        fits = [not figures.out_of_memory for figures in within]
        predicts = [bool(figures.prediction_fits) for figures in within]
        peak = estimate.record.row.peak_bytes
        assert peak is not None
        self.search.take(Probe(value, endless.reserved_bytes, peak, tuple(fits)))
        self.probes[value] = FitProbe(
            value=value,
            peak_bytes=peak,
            allocated_bytes=endless.allocated_bytes,
            reserved_bytes=endless.reserved_bytes,
            fits=fits,
            prediction_fits=predicts,
        )
        self.estimate = estimate

    def line(self) -> FitLine:
        """Return what the search has found."""
        assert self.estimate is not None
        cell, row = self.cell, self.estimate.record.row
        edges = [self.search.edge(memory) for memory in range(len(self.search.capacities))]
        return FitLine(
            suite=cell.suite,
            variant=self.label,
            method=cell.method,
            options=cell.options,
            network=cell.network.name,
            network_size=cell.network.size,
            task=cell.task.name,
            precision=cell.precision,
            residency=row.residency,
            parameters_count=row.parameters_count,
            lowest=self.search.lowest,
            probes=[self.probes[value] for value in sorted(self.probes)],
            edges=[FitEdge(largest=e.largest, following=e.following, gaps=list(e.gaps)) for e in edges],
        )


def find_largest(
    cells: Sequence[Cell],
    axis: SearchAxis,
    memories_bytes: Sequence[int],
    headroom_bytes: int,
    where: str,
    *,
    allocator: str = "",
    highest: int | None = None,
    processes: int | None = None,
    progress: Progress = lambda done, of: None,
) -> Fit:
    """Search the largest value on ``axis`` with which each variant of ``cells`` fits in each of the memories.

    It fits where the simulated allocator, with the settings ``allocator`` (as PYTORCH_ALLOC_CONF has them) and no more
    than the memory less ``headroom_bytes``, never runs out in training; each probe says beside it whether a prediction
    on as large a batch fits too. A probe answers for all memories, and the probes that all
    variants want at a time are estimated together. A variant that cannot be estimated goes to ``failed`` with the
    reason. Raises BadInput, opened by ``where`` (the suite's file), where a variant has no such dial.
    """
    if min(memories_bytes) <= headroom_bytes:
        raise BadInput(f"--memory: {min(memories_bytes):,} bytes are no more than the headroom of {headroom_bytes:,}")
    capacities = [memory - headroom_bytes for memory in memories_bytes]
    settings = [AllocatorSettings.parse(allocator, capacity) for capacity in (None, *capacities)]
    variants = []
    for label, cell in labelled(cells):
        turning = dial(axis, cell, where)
        search = Search(lowest(turning, where), highest or HIGHEST[axis], _SECOND[axis], capacities)
        if search.lowest > search.highest:
            raise BadInput(f"--max {search.highest}: variant '{label}' cannot be built below {axis} {search.lowest}")
        if turning.turn is not None:
            turning.at(search.highest)  # a suite has limits, and so has the search
        variants.append(_Variant(label, cell, turning, search))
    failed = _search_all(variants, axis, settings, where, processes, progress)
    return Fit(
        axis=axis,
        prediction="beside",
        highest=highest or HIGHEST[axis],
        memories_bytes=list(memories_bytes),
        headroom_bytes=headroom_bytes,
        allocator=settings[0].text(),
        torch_version=version("torch"),
        dbbench_version=dbbench_version(),
        lines=[variant.line() for variant in variants if variant.label not in failed],
        failed=failed,
    )


def _search_all(
    variants: Sequence[_Variant],
    axis: SearchAxis,
    settings: Sequence[AllocatorSettings],
    where: str,
    processes: int | None,
    progress: Progress,
) -> dict[str, str]:
    """Probe until no search wants anything more, what all want at a time together; return why variants failed."""
    failed: dict[str, str] = {}
    done = asked = 0
    with Workers(where, processes) as workers:
        while wanted := [(v, value) for v in variants if v.label not in failed for value in v.search.wanted()]:
            asked += len(wanted)
            for job, estimate in workers.estimates([(v.dial.at(value), settings) for v, value in wanted]):
                variant, value = wanted[job]
                if estimate.record.row.status == "ok":
                    variant.take(value, estimate)
                else:
                    failed[variant.label] = f"at {axis} {value}: {estimate.record.row.error}"
                done += 1
                progress(done, asked)
    return failed
