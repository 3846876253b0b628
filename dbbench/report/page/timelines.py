"""Traced steps as the page's timeline draws them: the step that holds the peak, thinned, and compact in JSON.

A payload holds, for each configuration, the instants shown and the bytes of each role at them as differences from one
instant to the next, which are mostly zeros, and for each instant the event that led to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.figure_style import NothingToDraw
from dbbench.report.figure_timeline import replay
from dbbench.report.palette import PHASE_TINTS, ROLE_FILLS, ROLE_NAMES
from dbbench.report.run import Configuration, Run
from dbbench.results.holdings import live_bytes, training_steps
from dbbench.results.roles import ROLES

TIMELINES = 8
INSTANTS = 1500
_BINS = INSTANTS // 3
_BANDS = 400


@dataclass
class Chosen:
    """A configuration with its trace, under the name it has on the page."""

    name: str
    run: Run
    configuration: Configuration
    trace: pd.DataFrame


@dataclass
class Timelines:
    """What the page embeds, and the names of the configurations that it does not."""

    chosen: list[Chosen] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def choose(runs: Sequence[Run], names: Sequence[str]) -> Timelines:
    """Return the first traced configuration of each network, method and residency, at most eight over all runs.

    ``names`` are what the page calls the runs, '' where there is one. A torn trace is passed over: the problems of
    the folder name it.
    """
    found = Timelines()
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        room = (TIMELINES - len(found.chosen)) // (len(runs) - place)
        seen: set[tuple[str, str, str | None]] = set()
        for configuration in run.configurations:
            record = configuration.costliest
            if record is None:
                continue
            label = text.printable(f"{name}: {configuration.label}" if name else configuration.label)
            kind = (record.row.network, record.row.method, record.row.residency)
            trace = _trace(run, record.row.config_hash) if kind not in seen and len(seen) < room else None
            if trace is None:
                found.left_out.append(label)
            else:
                seen.add(kind)
                found.chosen.append(Chosen(label, run, configuration, trace))
    return found


def _trace(run: Run, config_hash: str) -> pd.DataFrame | None:
    try:
        trace = run.folder.read_trace(config_hash)
        if trace is not None:
            replay(trace)
    except (BadInput, NothingToDraw):
        return None
    return trace


def payload(chosen: Sequence[Chosen]) -> dict[str, Any]:
    """Return what the timeline reads: roles and phases with their colours, a table of words, and the configurations."""
    words: dict[str, int] = {}
    variants = [_variant(one.name, one.trace, words) for one in chosen]
    used = {role for variant in variants for role in variant["roles"]}
    fills = {role: ROLE_FILLS[role] for role in ROLES if role in used}
    return {
        "roles": [
            {"key": role, "name": ROLE_NAMES[role], "color": fill.color, "hatch": fill.hatch[:1]}
            for role, fill in fills.items()
        ],
        "phases": PHASE_TINTS,
        "variants": variants,
        "words": list(words),
    }


def _variant(name: str, trace: pd.DataFrame, words: dict[str, int]) -> dict[str, Any]:
    rows = max(training_steps(trace), key=lambda step: int(live_bytes(step).max()))
    step = replay(rows)
    events = rows[rows["phase"] != "resident"]
    total = step.total
    shown = kept(total)
    before = shown[1:] - 1  # the event that led to an instant; the opening has none
    first = rows.iloc[0]

    def said(column: str) -> list[int]:
        named = events[column].astype(str).to_numpy()[before]
        return [words.setdefault(word, len(words)) for word in named.tolist()]

    return {
        "name": name,
        "step": int(first["step"]),
        "block": int(first["block"]),
        "instants": len(total),
        "peak": int(np.searchsorted(shown, step.peak_event)),
        "at": _differences(shown),
        "roles": {role: _differences(step.live[shown, i]) for i, role in enumerate(ROLES) if step.live[shown, i].any()},
        "phase": said("phase"),
        "module": said("module"),
        "op": said("op"),
        "role": said("role"),
        "bytes": events["bytes"].to_numpy(dtype=np.int64)[before].tolist(),
        "bands": _bands(step.phases, shown),
    }


def kept(total: np.ndarray) -> np.ndarray:
    """Return the instants to show, at most ``INSTANTS``: of each bin its highest, its lowest and its last.

    The first of the highest instants, the peak, is always among them, and so are the first and the last.
    """
    if len(total) <= INSTANTS:
        return np.arange(len(total))
    edges = np.linspace(0, len(total), _BINS).astype(int)  # a bin less, for the opening
    found = [0]
    for start, end in pairwise(edges):
        found += [start + int(total[start:end].argmax()), start + int(total[start:end].argmin()), end - 1]
    return np.unique(found)


def _differences(values: np.ndarray) -> list[int]:
    whole = np.asarray(values, dtype=np.int64)
    return np.concatenate([whole[:1], np.diff(whole)]).tolist()


def _bands(phases: list[str], shown: np.ndarray) -> list[list[Any]]:
    """Return ``[start, end, phase]`` of each stretch of one phase, over the shown instants where there are too many."""
    changes = [i for i, (one, two) in enumerate(pairwise(phases), 1) if one != two]
    starts = [0, *changes] if phases else []
    if len(starts) > _BANDS:
        visible = [int(i) for i in shown[:-1]]
        starts = [visible[0]] + [two for one, two in pairwise(visible) if phases[one] != phases[two]]
    ends = [*starts[1:], len(phases)]
    return [[start, end, phases[start]] for start, end in zip(starts, ends, strict=True)]
