"""Several runs side by side as one, for figures and tables: today's and last month's, mine and yours.

    run = together([load(Path("runs/vision")), load(Path("/elsewhere/vision"))])
    table = comparison(run)

A label becomes ``RUNNAME: label``. Ratios and references stay inside each run: a configuration is compared with the
backprop of its own folder, since another folder's may come from another machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dbbench.report.run import Run


def together(runs: Sequence[Run]) -> Run:
    """Return one run that shows all of ``runs``, in their order; a single one is returned as it is.

    Raises ValueError for none.
    """
    if not runs:
        raise ValueError("together() needs a run")
    if len(runs) == 1:
        return runs[0]
    names = run_names(runs)
    pairs = list(zip(names, runs, strict=True))
    tunings = {name: run.info["tuning"] for name, run in pairs if run.info.get("tuning")}
    same = set(map(str, tunings.values()))
    tuning = same.pop() if len(same) == 1 else "; ".join(f"{name}: {where}" for name, where in tunings.items())
    return Run(
        " and ".join(dict.fromkeys(run.name for run in runs)),
        {"tuning": tuning} if tuning else {},
        [replace(c, label=f"{name}: {c.label}") for name, run in pairs for c in run.configurations],
        {f"{name}: {label}": timing for name, run in pairs for label, timing in run.timings.items()},
        [f"{name}: {problem}" for name, run in pairs for problem in run.problems],
        [f"{name}: {label}" for name, run in pairs for label in run.without_record],
    )


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: that of its folder, as `folder_names` has it."""
    return folder_names([run.folder.path for run in runs])


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: its own, with as many of the folders above it as tell them apart.

    The same folder given twice is numbered.
    """
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(p[-depth:]) for p in parts]
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return found
