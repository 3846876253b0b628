"""The ledger's table: the peak, what it is made of, and everything else that a profile knows, on one page.

print(MemoryTable(profile))
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from dbbench.measure import rates
from dbbench.report import text
from dbbench.report.blocks import Block, Grid, Heading, Lines, Shown
from dbbench.report.fold import fold
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.unseen import unseen_warnings
from dbbench.results.profile import Profile, StepFigures
from dbbench.results.record import Held
from dbbench.results.roles import BEFORE, ROLES

#: Roles whose every holder has a line of its own, however small: these hold what nobody meant to keep.
_NEVER_HIDDEN = ("unseen", "retained", "other", "ema")
_HOLDERS_SHOWN = 5
#: Share of the peak from which temporaries, and further holders, are not summed up in the last line.
_LARGE = 0.01
_NEARLY = 0.9
#: What belongs to the model's parameters is shown by module from this share of the peak.
_MODELS_OWN = ("parameters", "gradients", "optimizer", "buffers")
_LARGE_OF_MODEL = 0.05
_STEPS_SHOWN = 12
_SIMULATED = "Simulated: what CUDA's caching allocator would take, in its default settings"
_DEVICE_FIGURES = {
    "device_peak_bytes": "allocator's peak, as asked for",
    "allocated_bytes": "allocated, rounded to blocks",
    "reserved_bytes": "reserved by the allocator",
    "nvml_process_peak_bytes": "process, by NVML",
}


@dataclass(frozen=True)
class _Line:
    """One line of what is held: a `Held`, or several under the name that they share."""

    role: str
    module: str
    op: str
    holder: str
    members: list[Held]

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.members)

    @property
    def storages(self) -> int:
        return sum(row.storages for row in self.members)


class MemoryTable(Shown):
    """What a profile says, to read: ``print`` it, let rich or a notebook show it, or take `markdown` or `frame`.

    At most ``rows`` lines of what is held are shown, largest first, and besides them what must not be hidden; the
    last line sums up the others, so that the lines always sum to the peak.
    """

    def __init__(self, profile: Profile, rows: int = 20) -> None:
        self.profile = profile
        self.rows = rows

    def frame(self) -> pd.DataFrame:
        """Return what is held at the peak, a row a (role, module, op, holder), largest first; bytes are exact."""
        columns = ["role", "module", "op", "holder", "bytes", "storages"]
        rows = [[getattr(row, name) for name in columns] for row in _sorted(self.profile.held)]
        frame = pd.DataFrame(rows, columns=columns)
        frame.insert(5, "share", frame["bytes"] / max(self.profile.peak_bytes, 1))
        return frame

    def blocks(self) -> list[Block]:
        profile = self.profile
        found: list[Block] = [
            Heading(f"{profile.name}: {text.mib(profile.peak_bytes)} MiB at the peak", 0),
            Lines([*_peak_lines(profile), *(f"! {line}" for line in warnings(profile))]),
            Heading("By role"),
            _roles(profile),
        ]
        if profile.held:
            found += [Heading("Held at the peak, largest first"), *self._held()]
        if profile.device_figures is not None:
            simulated = profile.device_figures.simulated
            found += [Heading(_SIMULATED if simulated else "The device's own account, of an untraced step")]
            found += [_device(profile)]
        arithmetic = _arithmetic(profile)
        if arithmetic:
            found += [Heading("Arithmetic"), Lines(arithmetic)]
        if profile.notes:
            found += [Heading("Notes"), Lines(profile.notes)]
        return found

    def _held(self) -> list[Block]:
        peak = self.profile.peak_bytes
        shown, rest = _lines(self.profile, self.rows)
        rows = []
        for line in shown:
            times = str(len(line.members)) if len(line.members) > 1 else ""
            names = [ROLE_NAMES.get(line.role, line.role), line.module, line.op, line.holder]
            rows.append([*names, times, *_figures(line.members, peak)])
        if rest:
            rows.append(["everything else", "", "", "", str(len(rest)), *_figures(rest, peak)])
        held = self.profile.held
        rows.append(["peak", "", "", "", str(len(held)), *_figures(held, peak)])
        header = ["role", "module", "op", "held by", "×", "MiB", "share", "storages"]
        grid = Grid(header, rows, words=4, totals=2 if rest else 1)
        if not rest:
            return [grid]
        left = ", ".join(f"{ROLE_NAMES.get(role, role)} {text.mib(size)}" for role, size in _by_role(rest).items())
        return [grid, Lines([f"everything else, MiB: {left}"])]


def warnings(profile: Profile) -> list[str]:
    """Return what a reader should look at, each a fact that the profile holds."""
    found = unseen_warnings(profile.own_peaks["unseen"], profile.unmeasured_work)
    if profile.ended_early:
        found.append(f"the step ended early, and the figures are of what ran until then: {profile.ended_early}")
    retained = [row for row in profile.held if row.role == "retained"]
    size = profile.split["retained"]
    if retained and size >= _LARGE * profile.peak_bytes:
        most, most_bytes = _by_holder(retained)[0]
        found.append(
            f"{text.mib(size)} MiB ({_share(size, profile.peak_bytes)}) are retained: alive past the phase that made "
            f"them and no part of the model; most, {text.mib(most_bytes)} MiB, by {most}"
        )
    when = _gradients_too_early(profile)
    if when:
        found.append(
            f"{text.mib(profile.split['gradients'])} MiB of gradients are alive {when}: an earlier backward left them"
        )
    temporaries = profile.split["temporaries"]
    if profile.peak_phase == "optimizer" and temporaries >= _LARGE * profile.peak_bytes:
        found.append(f"the optimizer's update makes the peak, with {text.mib(temporaries)} MiB of scratch")
    rise = _rise(profile.steps)
    return [*found, rise] if rise else found


def _gradients_too_early(profile: Profile) -> str:
    """Say when the peak has gradients that its own backward cannot have made yet."""
    split = profile.split
    if profile.peak_phase == "forward" and split["gradients"]:
        return "while a forward runs"
    # a backward lets go of activations as it makes gradients, so with nearly all of those it has not made all of these
    complete = split["gradients"] >= split["parameters"] > 0
    if (
        profile.peak_phase == "backward"
        and complete
        and split["activations"] > _NEARLY * profile.own_peaks["activations"]
    ):
        return "as a backward begins"
    return ""


def _rise(steps: list[StepFigures]) -> str:
    """Say when every step since the second, all on one block, peaked above the step before it."""
    later = steps[1:]  # the first step makes the optimizer's state
    if len(later) < 2 or len({step.block for step in later}) > 1:
        return ""
    if any(two.peak_bytes <= one.peak_bytes for one, two in pairwise(later)):
        return ""
    grown = later[-1].peak_bytes - later[0].peak_bytes
    return f"the peak rises from step to step, by {text.mib(grown)} MiB from step {later[0].step} to {later[-1].step}"


def _peak_lines(profile: Profile) -> list[str]:
    where = f"in {profile.peak_phase}" if profile.peak_phase else "in no step"
    if profile.peak_step is not None:
        where += f" of step {profile.peak_step}"
    if profile.peak_block is not None and any(step.block for step in profile.steps):
        where += f", block {profile.peak_block}"
    if profile.peak_op:
        where += f", while {profile.peak_op} ran in {profile.peak_module or 'no module'}"
    lines = [f"peak: {text.mib(profile.peak_bytes)} MiB ({profile.peak_bytes:,} bytes) {where}"]
    peaks = [step.peak_bytes for step in profile.steps]
    if len(set(peaks)) > 1:
        shown = ", ".join(text.mib(peak) for peak in peaks[:_STEPS_SHOWN])
        more = f", and {len(peaks) - _STEPS_SHOWN} more" if len(peaks) > _STEPS_SHOWN else ""
        lines.append(f"peak of each step, MiB: {shown}{more}")
    source = profile.source if profile.source == profile.device else f"{profile.source}, {profile.device}"
    lines.append(f"measured on {source}, with torch {profile.torch_version} and dbbench {profile.dbbench_version}")
    return [*lines, _resident(profile)]


def _resident(profile: Profile) -> str:
    if not profile.resident_bytes:
        return "nothing was alive before the ledger opened"
    line = f"{text.mib(profile.resident_bytes)} MiB were alive before the ledger opened"
    if not profile.undeclared_bytes:
        return f"{line}, all in a declared role"
    before = _by_holder(row for row in profile.held if row.op == BEFORE and row.role in ("retained", "other"))
    named = ", ".join(f"{holder} ({text.mib(size)} MiB)" for holder, size in before[:3])
    of_which = f"{line}, of which {text.mib(profile.undeclared_bytes)} MiB in no declared role"
    return f"{of_which}: {named}" if named else of_which


def _roles(profile: Profile) -> Grid:
    sizes = {role: (profile.split[role], profile.own_peaks[role]) for role in ROLES}
    order = sorted(ROLES, key=lambda role: (role != "unseen", -sizes[role][0], -sizes[role][1], ROLES.index(role)))
    rows = [
        [
            ROLE_NAMES[role],
            text.mib(sizes[role][0]),
            _share(sizes[role][0], profile.peak_bytes),
            text.mib(sizes[role][1]),
        ]
        for role in order
        if any(sizes[role])
    ]
    rows.append(["peak", text.mib(profile.peak_bytes), _share(profile.peak_bytes, profile.peak_bytes), ""])
    return Grid(["role", "MiB at the peak", "share", "its own peak, MiB"], rows, totals=1)


def _lines(profile: Profile, limit: int) -> tuple[list[_Line], list[Held]]:
    """Return (the lines to show, largest first; the rows of ``held`` that are to be summed up)."""
    held = _sorted(profile.held)
    if len(held) <= limit:
        return [_Line(row.role, row.module, row.op, row.holder or "", [row]) for row in held], []
    # alike to the byte, so that folding hides nothing
    groups = fold(held, lambda r: (r.module, r.holder or ""), lambda r: (r.role, r.op, r.bytes, r.storages))
    lines = [_Line(rows[0].role, module, rows[0].op, holder, rows) for (module, holder), rows in groups]
    if len(lines) > limit:
        lines = _models_own_together(lines, profile.peak_bytes)
    lines.sort(key=lambda line: -line.bytes)
    shown, rest = lines[:limit], [row for line in lines[limit:] for row in line.members]
    if len(lines) == limit + 1:
        return lines, []
    kept, rest = _kept(rest, profile.peak_bytes)
    return sorted([*shown, *kept], key=lambda line: -line.bytes), rest


def _models_own_together(lines: list[_Line], peak_bytes: int) -> list[_Line]:
    """Sum up by role and kind what belongs to the model's parameters, but for the large: it says little by module.

    Of a copy of them, by the copy: its holders are ``copy.path.of.parameter``.
    """
    found, groups = [], dict[tuple[str, str, str], list[_Line]]()
    for line in lines:
        if line.role in (*_MODELS_OWN, "ema") and line.bytes < _LARGE_OF_MODEL * peak_bytes:
            groups.setdefault((line.role, line.op, line.holder.partition(".")[0]), []).append(line)
        else:
            found.append(line)
    for (role, op, copy), alike in groups.items():
        rows = [row for line in alike for row in line.members]
        holder = f"{copy} ({sum(row.storages for row in rows)} tensors)" if copy else ""
        found.append(alike[0] if len(alike) == 1 else _Line(role, _several(rows, "module"), op, holder, rows))
    return found


def _kept(rows: list[Held], peak_bytes: int) -> tuple[list[_Line], list[Held]]:
    """Sum up by holder what must not be hidden; return (those lines, the other rows)."""
    groups = fold(rows, lambda row: (row.holder or "",), lambda row: row.role)
    groups.sort(key=lambda group: -sum(row.bytes for row in group[1]))
    kept: list[_Line] = []
    rest: list[Held] = []
    taken = dict.fromkeys(_NEVER_HIDDEN, 0)
    for (holder,), members in groups:
        role, size = members[0].role, sum(row.bytes for row in members)
        large = role == "temporaries" and size >= _LARGE * peak_bytes
        if role in taken and (taken[role] < _HOLDERS_SHOWN or size >= _LARGE * peak_bytes):
            taken[role], large = taken[role] + 1, True
        if large:
            kept.append(_Line(role, _several(members, "module"), _several(members, "op"), holder, members))
        else:
            rest += members
    return kept, rest


def _several(rows: list[Held], what: str) -> str:
    names = {getattr(row, what) for row in rows}
    return names.pop() if len(names) == 1 else f"({len(names)} {what}s)"


def _figures(rows: list[Held], peak_bytes: int) -> list[str]:
    size = sum(row.bytes for row in rows)
    return [text.mib(size), _share(size, peak_bytes), text.whole(sum(row.storages for row in rows))]


def _by_role(rows: list[Held]) -> dict[str, int]:
    sizes = {role: sum(row.bytes for row in rows if row.role == role) for role in {row.role for row in rows}}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _device(profile: Profile) -> Grid:
    figures = profile.device_figures
    assert figures is not None
    rows = []
    for name, words in _DEVICE_FIGURES.items():
        size = getattr(figures, name)
        reason = "" if size is not None else figures.reasons.get(name, "not measured")
        rows.append([words, reason, text.mib(size)])
        if name == "device_peak_bytes" and profile.kernel_workspace_bytes is not None:
            ran = f"while {figures.workspace_op} ran" if figures.workspace_op else ""
            rows.append(["… of that the ledger's peak", "", text.mib(profile.peak_bytes)])
            rows.append(["… and kernel workspace and peak shift", ran, text.signed_mib(profile.kernel_workspace_bytes)])
    return Grid(["what", "", "MiB"], rows, words=2, names=2)


def _arithmetic(profile: Profile) -> list[str]:
    flops = profile.flops_per_step
    lines = []
    if flops:
        parts = ", ".join(f"{phase} {text.flop_words(count)}" for phase, count in flops.items())
        mean = f", mean of {len(profile.steps)} steps" if len(profile.steps) > 1 else ""
        together = text.flop_words(sum(flops.values()), uncounted=profile.uncounted)
        lines.append(f"a step{mean}: {parts}; together {together}")
    if profile.attention:
        lines.append(f"attention kernels: {profile.attention}")
    if profile.uncounted:
        order = sorted(profile.uncounted.items(), key=lambda item: (-item[1], item[0]))
        calls = ", ".join(f"{op} ({count:,} call{'s' if count > 1 else ''})" for op, count in order)
        lines.append(f"without a FLOP formula, and in no total, which is a lower bound: {calls}")
    return lines + _rates(profile, flops)


def _rates(profile: Profile, flops: dict[str, int]) -> list[str]:
    """The time of a step, and the share of the device's peak rate that it is: of the model's own FLOPs, and of all."""
    if not profile.seconds_per_step:
        return []
    seconds = statistics.median(profile.seconds_per_step)
    lines = [f"{text.seconds(seconds)} a step, median of {len(profile.seconds_per_step)} untraced steps"]
    rate = profile.peak_flops_per_second
    if rate and flops:
        mfu, hfu = rates.mfu(flops, seconds, rate), rates.hfu(flops, seconds, rate)
        source = f" ({profile.peak_flops_source})" if profile.peak_flops_source else ""
        lines.append(
            f"MFU {text.share(mfu)} (forward and backward), HFU {text.share(hfu)} (all that ran), of "
            f"{text.flop_words(rate, 'FLOP/s')}{source}"
        )
    elif flops and profile.peak_flops_source:
        lines.append(f"no MFU: {profile.peak_flops_source}")
    return lines


def _by_holder(rows: Iterable[Held]) -> list[tuple[str, int]]:
    """Return (holder, bytes), largest first; the elements of a list are one holder."""
    groups = fold(rows, lambda row: (row.holder or f"an unknown holder (made by {row.op})",), lambda row: None)
    sizes = [(holder, sum(row.bytes for row in members)) for (holder,), members in groups]
    return sorted(sizes, key=lambda item: (-item[1], item[0]))


def _sorted(held: list[Held]) -> list[Held]:
    return sorted(held, key=lambda row: (-row.bytes, row.role, row.module, row.op, row.holder or ""))


def _share(size: int, whole: int) -> str:
    return text.share(size / whole) if whole else text.MISSING
