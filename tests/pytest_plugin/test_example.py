"""The example project, run as its owner runs it: by the entry point, in a process of its own, and spread over two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"
ROOT = Path(__file__).parents[2]
#: What each test of ``checks/check_fails.py`` is to say: the role, the module, the op and what keeps it.
FAILURES = {
    "test_activations_by_marker": (
        "activations: 4.50 MiB",
        "blocks.{0..3}.act",
        "aten.gelu",
        "input of addmm in blocks",
    ),
    "test_optimizer_by_ledger": ("optimizer: 1.01 MiB", "blocks.{0..3}.up", "exp_avg", "in optimizer"),
    "test_activations_against_a_reference": (
        "activations: 4.50 MiB",
        "1.5 * checkpointing",
        "aten.gelu",
        "blocks.{0..3}",
    ),
    "test_another_reason": ("another reason",),
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    found = [point.value for point in entry_points(group="pytest11") if point.name == "dbbench"]
    assert "dbbench.pytest_plugin.plugin" in found, (
        "install dbbench anew (pip install -e .): its entry point is missing"
    )


def pytest_in(folder: Path, *options: str, environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """Run pytest in ``folder`` and return (exit status, output)."""
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_loading_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    """Every pytest run of whoever has dbbench would take seconds longer, though no test asks for it."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    assert config.pluginmanager.has_plugin('dbbench')\n"
        "    print('HEAVY', sorted({'torch', 'pandas', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)))\n",
        encoding="utf-8",
    )
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert True\n", encoding="utf-8")
    status, output = pytest_in(tmp_path, "--memory-report")
    assert status == pytest.ExitCode.OK, output
    assert "no test measured any" in output
    assert "HEAVY []" in output


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two"])
def test_the_example_says_what_it_should(tmp_path: Path, workers: list[str]) -> None:
    """A user's tests would pass or fail otherwise than its README promises, or otherwise under xdist."""
    xml = tmp_path / "out.xml"
    status, output = pytest_in(EXAMPLE, "--memory-report", f"--junit-xml={xml}", "-ra", *workers)
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "4 failed, 11 passed, 1 xfailed" in output
    for test, words in FAILURES.items():
        (section,) = re.findall(rf"_{{3,}} {test} _{{3,}}\n(.*?)(?=\n_{{3,}} |\n=+ |\n-+ memory)", output, re.DOTALL)
        assert all(word in section for word in words), section
        assert "pytest_plugin/" not in section.replace("tests/pytest_plugin/example", "")
    table = output.partition("memory of the measured tests")[2]
    measured = [line for line in table.splitlines() if re.match(r"\s*[\d.]+  (forward|backward|optimizer|setup)", line)]
    assert len(measured) == 17
    assert [float(line.split()[0]) for line in measured] == sorted(
        (float(x.split()[0]) for x in measured), reverse=True
    )
    properties = {
        (case.attrib["name"], found.attrib["name"]): found.attrib["value"]
        for case in ElementTree.parse(xml).iter("testcase")
        for found in case.iter("property")
    }
    assert properties["test_activations_by_marker", "memory:body:activations_own_peak_bytes"] == "4718592"
    assert properties["test_checkpointing_saves", "memory:step:limit"].startswith("peak <= 0.75 * backprop (")


@pytest.mark.slow
def test_a_slip_stops_workers_too(tmp_path: Path) -> None:
    """Under xdist a limit with a slip would crash the workers, or be passed over."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.memory_limit(activation='1 MiB')\ndef test_it():\n    pass\n", encoding="utf-8"
    )
    status, output = pytest_in(tmp_path, "-n", "2")
    assert status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED), output
    assert "test_it.py::test_it: memory_limit(activation=…)" in output
    assert "did you mean 'activations'?" in output
    assert "passed" not in output and "INTERNALERROR" not in output
