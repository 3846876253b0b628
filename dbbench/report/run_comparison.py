"""Two runs, figure by figure: what was, what is, and whether the difference is more than noise.

    comparison = compare_runs(load(Path("runs/last-month")), load(Path("runs/today")))
    for row in comparison.rows: print(row.label, row.metric, row.before, row.after, row.verdict)

Bytes of the ledger and FLOPs are deterministic, so they are the same only where they are equal. What grew *inside* a
peak, by module and op, is another question: `dbbench.profile.compare` and the verb ``diff`` answer it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dbbench.errors import BadInput
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.run import Configuration, Run
from dbbench.report.together import run_names
from dbbench.report.verdict import LEVEL, welch
from dbbench.results.frames import experiment, final_metric
from dbbench.results.record import Record, Timing
from dbbench.results.roles import ROLES

SAME, LOWER, HIGHER, NOISE = "same", "lower", "higher", "within noise"
SLOWER, FASTER = "slower", "faster"
ONLY_BEFORE, ONLY_AFTER, NOT_MEASURED = "only before", "only after", "not measured"

#: What the allocator of a device says of one step differs between two processes by less than this.
DEVICE_TOLERANCE = 0.01
NOTES = (
    "Bytes of the ledger and FLOPs are exact: the same only where they are equal. A metric differs where Welch's "
    f"t-test over seeds says so at the {100 * LEVEL:.0f} % level. A device's own peaks differ beyond "
    f"{100 * DEVICE_TOLERANCE:.0f} %. Samples/s differ where the middle halves of the rounds do not overlap; two runs "
    "were not timed side by side, so a busier machine shows there too."
)
_MISMATCHES_NAMED, _LABELS_NAMED = 6, 4

#: row's column: (what it is called, unit), in the order of a table.
_EXACT = {
    "peak_bytes": ("peak", "bytes"),
    **{f"{role}_bytes": (f"{ROLE_NAMES[role]} at the peak", "bytes") for role in ROLES},
    **{f"{role}_own_peak_bytes": (f"{ROLE_NAMES[role]}, own peak", "bytes") for role in ROLES},
    "inference_peak_bytes": ("inference peak", "bytes"),
    "host_transfer_bytes_per_step": ("transfer a step", "bytes"),
    "flops_step": ("FLOPs of a step", "FLOPs"),
    "flops_forward": ("FLOPs, forward", "FLOPs"),
    "flops_backward": ("FLOPs, backward", "FLOPs"),
    "flops_recompute": ("FLOPs, recompute", "FLOPs"),
    "flops_train_total": ("FLOPs of the training", "FLOPs"),
}
_OF_DEVICE = {
    "device_peak_bytes": ("device peak", "bytes"),
    "allocated_bytes": ("allocated", "bytes"),
    "reserved_bytes": ("reserved", "bytes"),
    "nvml_process_peak_bytes": ("process (NVML)", "bytes"),
}


@dataclass(frozen=True)
class Compared:
    """One figure of one configuration in both runs; ``difference`` is after less before, None where one is missing."""

    label: str
    metric: str
    unit: str
    before: float | int | None
    after: float | int | None
    difference: float | int | None
    verdict: str


@dataclass(frozen=True)
class RunComparison:
    """Every figure that either run has, by configuration; ``before`` and ``after`` name the runs."""

    before: str
    after: str
    rows: list[Compared]
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[Compared]:
        """The rows that differ by more than noise, or that one side lacks."""
        return [row for row in self.rows if row.verdict not in (SAME, NOISE)]


Sides = tuple[Any, Any]
#: What is said of cells, and of which.
Said = dict[str, list[str]]


class _Pair(NamedTuple):
    """A configuration in both runs, its label, and the seeds that finished in both."""

    label: str
    before: Configuration
    after: Configuration
    seeds: set[int]


def compare_runs(before: Run, after: Run, mismatched: bool = False) -> RunComparison:
    """Compare two runs configuration by configuration.

    Raises BadInput, one line that names cell, key and both values, where two configurations of one label differ in
    what they train, in their data, torch's minor version or device, unless ``mismatched``; and where the runs have no
    configuration in common.
    """
    names = run_names([before, after])
    paired = list(_paired(before, after))
    both = [_pair(one, two) for one, two in paired if one is not None and two is not None]
    if not both:
        theirs = [", ".join(c.label for c in run.configurations[:4]) for run in (before, after)]
        raise BadInput(f"{names[0]} and {names[1]} have no configuration in common ({theirs[0]}; {theirs[1]})")
    unlike: Said = {}
    for pair in both:
        if words := _mismatch(pair):
            unlike.setdefault(words, []).append(pair.label)
    differences = _grouped(unlike)
    if differences and not mismatched:
        more = len(differences) - _MISMATCHES_NAMED
        told = "; ".join(differences[:_MISMATCHES_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise BadInput(f"{names[0]} and {names[1]} are not of the same configurations: {told} (--mismatched compares)")
    said: Said = {}
    rows: list[Compared] = []
    for one, two in paired:
        if one is not None and two is not None:
            rows += _rows(_pair(one, two), before, after, said)
        else:
            rows.append(_alone(one, two))
            said.setdefault(f"only in {names[0 if one is not None else 1]}", []).append(rows[-1].label)
    notes = [f"not the same configuration: {words}" for words in differences] + _grouped(said)
    return RunComparison(names[0], names[1], rows, notes + _provenance(before, after))


def _grouped(said: Said) -> list[str]:
    """Return a line for each thing that is said, with the cells that it is said of before it."""
    found = []
    for words, labels in said.items():
        more = len(labels) - _LABELS_NAMED
        who = ", ".join(labels[:_LABELS_NAMED]) + (f" and {more} more" if more > 0 else "")
        found.append(f"{who}: {words}")
    return found


def _paired(before: Run, after: Run) -> Iterator[tuple[Configuration | None, Configuration | None]]:
    """Yield what belongs together: the same variant of the same experiment, else of the same label; then what is left.

    A label holds what varies inside its own run, so that a run of one grid point calls the same cells otherwise.
    """
    by_experiment = {_key(c): c for c in after.configurations}
    partner = {id(c): by_experiment.get(_key(c)) for c in before.configurations}
    taken = {id(c) for c in partner.values() if c is not None}
    by_label = {c.label: c for c in after.configurations if id(c) not in taken}
    for c in before.configurations:
        found = partner[id(c)] or by_label.pop(c.label, None)
        taken |= {id(found)}
        yield c, found
    for c in after.configurations:
        if id(c) not in taken:
            yield None, c


def _key(configuration: Configuration) -> tuple[Any, ...]:
    return configuration.variant, tuple(sorted(_experiment(configuration).items()))


def _experiment(configuration: Configuration) -> dict[str, str]:
    """What the cells of a configuration are: a finished one knows its torch, device and data too."""
    record = (configuration.finished or configuration.records)[0]
    return {key.removeprefix("cell."): value for key, value in experiment(record).items()}


def _pair(before: Configuration, after: Configuration) -> _Pair:
    seeds = [{record.row.seed for record in c.finished} for c in (before, after)]
    label = before.label if before.label == after.label else f"{before.label} → {after.label}"
    return _Pair(label, before, after, seeds[0] & seeds[1])


def _mismatch(pair: _Pair) -> str:
    """Return the keys that differ, each with both values; what a failed cell cannot know is no difference."""
    one, two = _experiment(pair.before), _experiment(pair.after)
    unknown = set() if pair.before.finished and pair.after.finished else {"torch", "device", "dataset_sha256"}
    keys = sorted((one.keys() | two.keys()) - unknown - {"variant"})
    differing = [key for key in keys if one.get(key) != two.get(key)]
    return ", ".join(f"{key} {one.get(key, 'unset')} and {two.get(key, 'unset')}" for key in differing)


def _rows(pair: _Pair, before: Run, after: Run, said: Said) -> Iterator[Compared]:
    one, two = (_costliest(c, pair.seeds) for c in (pair.before, pair.after))
    for side, c, record in (("before", pair.before, one), ("after", pair.after, two)):
        if record is None:
            statuses = ", ".join(sorted({r.row.status for r in c.records}))
            said.setdefault(f"no cell finished {side} ({statuses})", []).append(pair.label)
    figures: dict[str, tuple[str, str]] = _EXACT | _OF_DEVICE
    for column, (metric, unit) in figures.items():
        values = _both(*(None if record is None else getattr(record.row, column) for record in (one, two)))
        on_cuda = any(record is not None and record.row.source == "cuda" for record in (one, two))
        tolerance = DEVICE_TOLERANCE if on_cuda and column in _OF_DEVICE else 0.0
        if values != (None, None):
            yield _compared(pair.label, metric, unit, values, _exact(*values, tolerance))
    yield from _speed(pair, before.timings.get(pair.before.label), after.timings.get(pair.after.label))
    yield from _metric(pair, said)


def _costliest(configuration: Configuration, seeds: set[int]) -> Record | None:
    """Return the finished cell with the largest peak, of the seeds that both runs have where there are any."""
    finished = [r for r in configuration.finished if not seeds or r.row.seed in seeds]
    return max(finished, key=lambda record: record.row.peak_bytes or 0, default=None)


def _both(before: Any, after: Any) -> Sides:
    return before, after


def _compared(label: str, metric: str, unit: str, sides: Sides, verdict: str) -> Compared:
    before, after = sides
    difference = None if before is None or after is None else after - before
    return Compared(label, metric, unit, before, after, difference, verdict)


def _exact(before: Any, after: Any, tolerance: float) -> str:
    if before is None or after is None:
        return NOT_MEASURED
    if before == after:
        return SAME
    if abs(after - before) <= tolerance * abs(before):
        return NOISE
    return HIGHER if after > before else LOWER


def _speed(pair: _Pair, before: Timing | None, after: Timing | None) -> Iterator[Compared]:
    one, two = (None if t is None else t.samples_per_step / np.array(t.seconds_per_step) for t in (before, after))
    medians = _both(*(None if speeds is None else float(np.median(speeds)) for speeds in (one, two)))
    if medians == (None, None):
        return
    if one is None or two is None:
        verdict = NOT_MEASURED
    elif np.array_equal(one, two):
        verdict = SAME
    else:
        halves = [np.quantile(speeds, (0.25, 0.75)) for speeds in (one, two)]
        apart = min(len(one), len(two)) > 1 and max(low for low, _ in halves) > min(high for _, high in halves)
        verdict = _exact(*medians, 0.0 if apart else math.inf)
        verdict = {LOWER: SLOWER, HIGHER: FASTER}.get(verdict, verdict)
    yield _compared(pair.label, "samples/s", "samples/s", medians, verdict)


def _metric(pair: _Pair, said: Said) -> Iterator[Compared]:
    """Yield the figure of merit, mean over seeds; where the runs' own differ, each alone."""
    sides = [{r.row.seed: r for r in c.finished if r.row.metric_value is not None} for c in (pair.before, pair.after)]
    one, two = (_metric_name(side) for side in sides)
    means = _both(*map(_mean, sides))
    if one is not None and two is not None and one != two:
        said.setdefault(f"{one[0]} and {two[0]} are not the same metric", []).append(pair.label)
        yield _compared(pair.label, *one, (means[0], None), ONLY_BEFORE)
        yield _compared(pair.label, *two, (None, means[1]), ONLY_AFTER)
        return
    name = one or two
    if name is None:
        return
    values = [{seed: float(r.row.metric_value or 0) for seed, r in side.items()} for side in sides]
    yield _compared(pair.label, *name, means, _told_apart(*values))
    if all(values) and values[0].keys() != values[1].keys():
        seeds = [", ".join(map(str, sorted(side))) for side in values]
        words = f"seeds {seeds[0]} and {seeds[1]}; bytes and FLOPs are compared on those of both"
        said.setdefault(words, []).append(pair.label)
    if all(values) and values[0] != values[1] and min(map(len, values)) < 2:
        said.setdefault("one seed, so no test can tell a difference of the metric from noise", []).append(pair.label)


def _metric_name(side: dict[int, Record]) -> tuple[str, str] | None:
    """Return the figure of merit with its split, and its unit; None where no cell has one."""
    record = next(iter(side.values()), None)
    if record is None:
        return None
    metric = final_metric(record)
    return (str(record.row.metric), "") if metric is None else (f"{metric.split} {metric.name}", metric.unit)


def _mean(side: dict[int, Record]) -> float | None:
    return float(np.mean([r.row.metric_value for r in side.values()])) if side else None


def _told_apart(before: dict[int, float], after: dict[int, float]) -> str:
    if not before or not after:
        return NOT_MEASURED
    if before == after:
        return SAME
    one, two = list(before.values()), list(after.values())
    gap = float(np.mean(two)) - float(np.mean(one))
    test = welch(two, one)
    if (test is not None and test.p >= LEVEL) or (test is None and (min(len(one), len(two)) < 2 or not gap)):
        return NOISE  # without a test there is one seed, or none that differs from another of its side
    return HIGHER if gap > 0 else LOWER


def _alone(before: Configuration | None, after: Configuration | None) -> Compared:
    configuration = before or after
    assert configuration is not None
    costliest = configuration.costliest
    peak = None if costliest is None else costliest.row.peak_bytes
    sides = (peak, None) if before is not None else (None, peak)
    return _compared(configuration.label, "peak", "bytes", sides, ONLY_BEFORE if before is not None else ONLY_AFTER)


def _provenance(before: Run, after: Run) -> list[str]:
    """Say which program made each run, where that differs."""
    found = []
    for name, column in (("git commit", "git_commit"), ("dbbench", "dbbench_version"), ("torch", "torch_version")):
        values = [sorted({str(getattr(r.row, column))[:12] for r in run.records}) for run in (before, after)]
        if values[0] != values[1]:
            found.append(f"{name}: {', '.join(values[0])} and {', '.join(values[1])}")
    return found
