"""What ``dbbench estimate`` costs: wall time, and the memory of its whole process tree.

    python -m benchmarks.estimate_cost [--suite suites/paper-scale.yaml] [--out reports/estimate/cost.md] [--rounds 3]

Linux alone: memory is read from /proc every 50 ms. Exit status 1 where a limit is not kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dbbench.results.store import write_atomically

EVERY_SECONDS = 0.05
MIB = 2**20
MOST_SECONDS, MOST_BYTES = 60.0, 2**30
PAGE = """\
# What an estimate costs

`dbbench estimate {suite}`, rounds: {rounds}, on {cores} cores ({platform}, torch {torch}). Imports and the start of the
processes are in it; memory is summed over the process tree every {every:.0f} ms. **CPU** is the processors' time that
the tree used. **RSS** counts a page that several processes share once for each of them; **PSS** divides it among them,
which is what the machine lacks. **Load** is how many threads wanted the cores in the minute before a round began: what
of it is others' takes wall time, and some CPU time, from the round.

{table}

The limits are {seconds:.0f} s and {limit:,.0f} MiB of RSS: **{verdict}** in the worst round.
"""


@dataclass
class Cost:
    """One round: wall time, the tree's processor time, the peaks of summed RSS and PSS, and the load before it."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int
    processes: int
    load: float


def measure(suite: str) -> Cost:
    """Run the verb once and watch its tree; raises where it fails."""
    load, began, used = os.getloadavg()[0], time.perf_counter(), _children_seconds()
    command = [sys.executable, "-m", "dbbench", "estimate", suite]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    rss = pss = most = 0
    while process.poll() is None:
        tree = _tree(process.pid)
        sizes = [_rollup(pid) for pid in tree]
        rss, pss = max(rss, sum(size[0] for size in sizes)), max(pss, sum(size[1] for size in sizes))
        most = max(most, len(tree))
        time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with status {process.returncode}")
    return Cost(time.perf_counter() - began, _children_seconds() - used, rss, pss, most, load)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tree(root: int) -> list[int]:
    """Return ``root`` and all that came of it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def _rollup(pid: int) -> tuple[int, int]:
    """Return (RSS, PSS) of a process in bytes, zeros where it has gone."""
    sizes = {"Rss": 0, "Pss": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0]) * 1024
    except OSError:
        pass
    return sizes["Rss"], sizes["Pss"]


def page(suite: str, costs: list[Cost]) -> tuple[str, bool]:
    """Return the page, and whether the limits are kept."""
    lines = ["| round | s | CPU, s | RSS, MiB | PSS, MiB | processes | load |", "| ---: " * 7 + "|"]
    for number, cost in enumerate(costs, 1):
        sizes = f"{cost.rss_bytes / MIB:,.0f} | {cost.pss_bytes / MIB:,.0f}"
        lines.append(
            f"| {number} | {cost.seconds:.1f} | {cost.cpu_seconds:.1f} | {sizes} | {cost.processes} | {cost.load:.1f} |"
        )
    kept = max(c.seconds for c in costs) < MOST_SECONDS and max(c.rss_bytes for c in costs) < MOST_BYTES
    text = PAGE.format(
        suite=suite,
        rounds=len(costs),
        cores=len(os.sched_getaffinity(0)),
        platform=f"{sys.platform}, Python {sys.version.split()[0]}",
        torch=version("torch"),
        every=1000 * EVERY_SECONDS,
        table="\n".join(lines),
        seconds=MOST_SECONDS,
        limit=MOST_BYTES / MIB,
        verdict="kept" if kept else "not kept",
    )
    return text, kept


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--suite", default="suites/paper-scale.yaml")
    parser.add_argument("--out", type=Path, default=Path("reports/estimate/cost.md"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    text, kept = page(given.suite, [measure(given.suite) for _ in range(given.rounds)])
    print(text, end="")
    write_atomically(given.out, text.encode())
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
