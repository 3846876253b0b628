"""Every idiom of a leak test on every planted leak: which catches which.

    python -m benchmarks.leak_idioms [--out reports/ledger/leak_idioms.md]

The idioms are those of the README, run by pytest as it stands there. Each must fail on every leak and pass on the step
that keeps nothing. Exit status 1 where one does not, and the table does not say why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from benchmarks.leaks.planted import LEAKS

ROOT = Path(__file__).parent.parent
#: By name: how it stands in a table, and the test.
IDIOMS = {
    "marker": (
        '`memory_leaks("0 B", warmup=1)`',
        """\
@pytest.mark.memory_leaks("0 B", warmup=1)
@leaks
def {}(name, made):
    made[3]()
""",
    ),
    "kept": (
        "`found.kept_bytes == 0`",
        """\
@leaks
def {}(name, made, ledger):
    with ledger(made[0], made[1], inputs=made[2]) as found:
        made[3]()
    assert found.kept_bytes == 0, found.kept
""",
    ),
    "limit": (
        '`memory_limit(kept="0 B")`',
        """\
@pytest.mark.memory_limit(kept="0 B")
@leaks
def {}(name, made):
    made[3]()
""",
    ),
    "grows": (
        "four steps in one `dbbench.Ledger`",
        """\
@leaks
def {}(name, made):
    with dbbench.Ledger(made[0], made[1], inputs=made[2]) as found:
        for _ in range(4):
            made[3]()
    assert found.kept_bytes == 0, found.kept
""",
    ),
}
#: What an idiom cannot catch, and why.
BLIND = {
    ("limit", "optimizers"): "the state of an optimizer is the optimizer's, whoever keeps it",
    ("limit", "buffers"): "a buffer of the model belongs to the model, whenever it came",
}
HEAD = """\
import dbbench
import pytest
from benchmarks.leaks.planted import LEAKS, fresh

leaks = pytest.mark.parametrize("name", ["", *LEAKS])


@pytest.fixture
def made(name):
    return fresh(name)


"""


def outcomes() -> dict[tuple[str, str], bool]:
    """Return whether each (idiom, leak) fails; the leak '' is the step that keeps nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = "\n\n".join(test.format(f"test_{idiom}") for idiom, (_, test) in IDIOMS.items())
        (folder / "test_leaks.py").write_text(HEAD + tests)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--junitxml=found.xml",
        ]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "test_leaks.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout + done.stderr)
        found = {}
        for case in ET.parse(folder / "found.xml").getroot().iter("testcase"):
            idiom, _, leak = str(case.get("name")).removeprefix("test_").partition("[")
            if case.find("error") is not None:
                raise RuntimeError(f"{case.get('name')}: {case.find('error').get('message')}")  # type: ignore[union-attr]
            found[idiom, leak.rstrip("]")] = case.find("failure") is not None
    return found


def report(found: dict[tuple[str, str], bool]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Leak tests, and the leaks that they catch",
        "",
        f"Made by `python -m benchmarks.leak_idioms`, on CPU with torch {torch.__version__}. Each test stands as in",
        "the README and runs on a step with one [planted leak](../../benchmarks/leaks/planted.py), and on one with",
        "none.",
        "",
        "| what a step keeps | " + " | ".join(label for label, _ in IDIOMS.values()) + " |",
        "|---|" + ":-:|" * len(IDIOMS),
    ]
    for leak, make in {"": None, **LEAKS}.items():
        story = " ".join((make.__doc__ or "").split()) if make else "**Nothing.**"
        cells = [_cell(found, idiom, leak) for idiom in IDIOMS]
        lines.append(f"| {story.replace('``', '`')} | {' | '.join(cells)} |")
    notes = "; ".join(BLIND.values())
    lines += ["", f"✓: the test fails, as it should. –: it does not, for {notes}. `memory_leaks` sees both."]
    return "\n".join(lines) + "\n"


def _cell(found: dict[tuple[str, str], bool], idiom: str, leak: str) -> str:
    if not leak:
        return "fails" if found[idiom, leak] else "passes"
    return "✓" if found[idiom, leak] else "–"


def unexplained(found: dict[tuple[str, str], bool]) -> list[str]:
    """Return the pairs that are neither caught nor said to be out of reach, and alarms at nothing."""
    missed = [f"{idiom}: {leak}" for (idiom, leak), fails in found.items() if leak and not fails]
    said = {f"{idiom}: {leak}" for idiom, leak in BLIND}
    return [pair for pair in missed if pair not in said] + [
        f"{idiom}: a false alarm" for (idiom, leak), fails in found.items() if not leak and fails
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "ledger" / "leak_idioms.md")
    out = parser.parse_args().out
    found = outcomes()
    out.write_text(report(found))
    wrong = unexplained(found)
    print(f"{out}: {sum(found.values())} of {len(found) - len(IDIOMS)} caught", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
