"""Stage 2, the tests marked ``gpu``: a file at a time, the JUnit report kept. Without a GPU each is a skip."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.on_gpu.stage import Result, Setting, Stage

#: They take a minute each on an H200, so they come last.
_SLOW = ("test_allocator_cuda.py", "test_calibrate_cuda.py")
ROOT = Path(__file__).parents[2]


def _items(setting: Setting) -> list[str]:
    names = {path.name for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    return sorted(names, key=lambda name: (name in _SLOW, name))


def run(item: str, setting: Setting) -> Result:
    """Run one file; return what became of each test."""
    junit = setting.out / "stages" / f"{Path(item).stem}.xml"
    order = ["-m", "gpu", "-q", "-o", "addopts=", "-p", "no:cacheprovider", f"--junit-xml={junit}"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *order, str(ROOT / "tests" / "gpu" / item)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if not junit.exists():
        raise RuntimeError(f"pytest left no report: {ended.stdout.strip()[-300:]}")
    return {"tests": outcomes(junit)}


def outcomes(junit: Path) -> list[Result]:
    """Return every test of a JUnit file: its name, ``passed``, ``skipped`` or ``failed``, seconds and message."""
    found = []
    for case in ElementTree.parse(junit).iter("testcase"):
        outcome, message = "passed", ""
        for mark in case:
            if mark.tag in ("failure", "error"):
                outcome, message = "failed", mark.get("message", "")
            elif mark.tag == "skipped":
                outcome, message = "skipped", mark.get("message", "")
        name, seconds = case.get("name", ""), float(case.get("time", 0))
        found.append({"test": name, "outcome": outcome, "seconds": seconds, "message": message[:500]})
    return found


STAGE = Stage("gpu_tests", "The tests marked gpu", 0.25, 120, _items, run)
