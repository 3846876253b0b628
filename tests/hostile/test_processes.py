"""The command as a process: what Python cannot see, what is left running, and where it is started."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hostile.folders import nothing_lost, snapshot
from hostile.strangers import write_project

import dbbench as dbbench_package

C_EXIT = "__import__('ctypes').CDLL(None).exit(0)"
C__EXIT = "__import__('ctypes').CDLL(None)._exit(0)"
C_EXEC = "__import__('ctypes').CDLL(None).execl(b'/bin/true', b'true', None)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
LEAVES = "__import__('subprocess').Popen(['sleep', '600'], start_new_session=True)"
THREAD = "threading.Thread(target=time.sleep, args=(600,)).start()"


def start(*arguments: str, folder: Path, python: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, "-m", "dbbench", *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def dbbench(*arguments: str, folder: Path, python: tuple[str, ...] = (), **environment: str) -> tuple[int, str, str]:
    """Run the command in ``folder``; return its status, and what it wrote to standard output and error."""
    process = start(*arguments, folder=folder, python=python, **environment)
    out, err = process.communicate(timeout=180)
    assert "Traceback" not in out + err
    return process.returncode, out, err


CHECK = ("check", "--fake", "strange.yaml", "--baseline", "baseline")
RUN = ("run", "strange.yaml", "--device", "cpu", "--no-timing", "--out", "out")


@pytest.fixture
def baseline() -> str:
    cell = "strange/mine\tfake"
    return f"dbbench baseline 1\n{cell}\n{cell}\t{version('torch')}\tpeak_bytes\t1\texact\n"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["import", "step"])
@pytest.mark.parametrize("code", [C_EXIT, C__EXIT, C_EXEC, KILL])
def test_a_check_whose_process_is_ended_from_below_has_status_4(
    code: str, place: str, tmp_path: Path, baseline: str
) -> None:
    """Broken if a library under test that calls C's exit(0) is a green check."""
    write_project(tmp_path, "below", "method", place, code)
    (tmp_path / "baseline").write_text(baseline)
    with nothing_lost(tmp_path):
        status, out, err = dbbench(*CHECK, folder=tmp_path)
    assert (status, out) == (4, "")
    (line,) = err.splitlines()
    assert line.startswith("dbbench: the process was ")


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "where"), [(RUN, "import"), (("profile", "below:make_step"), "step")])
@pytest.mark.parametrize("code", [C_EXIT, KILL])
def test_other_verbs_have_status_1(verb: tuple[str, ...], where: str, code: str, tmp_path: Path) -> None:
    """Broken if a run that trained nothing, or a profile of nothing, ends well."""
    write_project(tmp_path, "below", "method" if verb is RUN else "training", where, code)
    status, out, err = dbbench(*verb, folder=tmp_path)
    assert (status, out, len(err.splitlines())) == (1, "", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "error"), [(C_EXIT, "ended without a record"), (KILL, "killed by SIGKILL")])
def test_a_cell_that_is_ended_from_below_is_a_row(code: str, error: str, tmp_path: Path) -> None:
    """Broken if a cell's worker that ends with status 0 counts as a cell that is done."""
    write_project(tmp_path, "below", "method", "step", code)
    status, _, _ = dbbench(*RUN, folder=tmp_path)
    (record,) = (tmp_path / "out" / "records").glob("*.json")
    row = json.loads(record.read_text())["row"]
    assert (status, row["status"] in ("failed", "killed")) == (1, True)
    assert error in row["error"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process can adopt what another leaves")
@pytest.mark.parametrize("verb", [RUN, ("check", "--fake", "strange.yaml", "--baseline", "new", "--update")])
def test_what_is_left_running_in_a_session_of_its_own_is_ended_and_named(
    verb: tuple[str, ...], tmp_path: Path, marked: Callable[[], list[int]]
) -> None:
    """Broken if a grandchild outlives the command and goes on using the machine that the next cell is timed on."""
    write_project(tmp_path, "leaves", "method", "prepare", LEAVES)
    status, out, err = dbbench(*verb, folder=tmp_path)
    assert status == 0, out + err
    assert "sleep (" in out + err
    assert marked() == []


@pytest.mark.slow
def test_a_thread_that_is_left_running_does_not_keep_the_command(tmp_path: Path) -> None:
    """Broken if a thread of the code under test makes a check wait for ever when it is done."""
    write_project(tmp_path, "threads", "method", "step", THREAD)
    status, _, err = dbbench("check", "--fake", "strange.yaml", "--baseline", "new", "--update", folder=tmp_path)
    assert status == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", [RUN, CHECK])
def test_a_signal_to_the_command_reaches_what_works(
    number: signal.Signals, verb: tuple[str, ...], tmp_path: Path, baseline: str, marked: Callable[[], list[int]]
) -> None:
    """Broken if the process that waits takes the signal for itself, and what trains goes on."""
    write_project(tmp_path, "slow", "method", "step", "open('begun', 'w'); time.sleep(600)")
    (tmp_path / "baseline").write_text(baseline)
    process = start(*verb, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert marked() == []


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_one(tmp_path: Path, marked: Callable[[], list[int]]) -> None:
    """Broken if what ``timeout`` sends counts as a second Ctrl-C, and the run ends without its records."""
    write_project(tmp_path, "slow", "method", "step", "open('begun', 'w'); time.sleep(600)")
    command = [sys.executable, "-m", "dbbench", *RUN]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    (record,) = (tmp_path / "out" / "records").glob("*.json")
    assert json.loads(record.read_text())["row"]["status"] == "interrupted"
    assert marked() == []


@pytest.mark.slow
def test_a_command_that_is_killed_takes_all_of_its_processes_with_it(
    tmp_path: Path, marked: Callable[[], list[int]]
) -> None:
    """Broken if SIGKILL to the process that waits leaves the one that works."""
    write_project(tmp_path, "slow", "method", "step", "open('begun', 'w'); time.sleep(600)")
    process = start(*RUN, folder=tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while marked() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked() == []


@pytest.mark.slow
def test_own_modules_are_found_in_a_folder_with_a_colon(tmp_path: Path) -> None:
    """Broken if the import path goes to a worker as one text that a colon divides."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    write_project(folder, "mine", "method", "", "pass")
    status, out, err = dbbench(*RUN, folder=folder)
    assert status == 0, out + err
    assert dbbench("estimate", "strange.yaml", folder=folder)[0] == 0


@pytest.mark.slow
def test_a_backend_for_a_screen_that_is_not_here_does_not_end_a_run(tmp_path: Path) -> None:
    """Broken if figures fail, when all has been trained, over a variable that they have no use for."""
    write_project(tmp_path, "mine", "none", "", "pass")
    status, out, err = dbbench(*RUN, folder=tmp_path, MPLBACKEND="no_such_backend")
    assert status == 0, out + err
    assert (tmp_path / "out" / "summary.md").exists()


def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    """Broken if Python's own complaint about the working folder is the answer."""
    folder = tmp_path / "gone"
    folder.mkdir()
    command = f"rmdir '{folder}'; exec '{sys.executable}' -m dbbench list"
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dbbench: the working folder is gone; change to one that is there\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_residency_leaves_no_file_however_the_process_ends(number: signal.Signals, tmp_path: Path) -> None:
    """Broken if the parameters and optimizer state of a killed run fill the temporary folder for ever."""
    code = (
        "import os, sys, torch\n"
        "from dbbench.methods.residency import Residency\n"
        "blocks = [[torch.nn.Parameter(torch.ones(1000))] for _ in range(3)]\n"
        "optimizer = torch.optim.AdamW([p for block in blocks for p in block])\n"
        "residency = Residency('active', blocks, optimizer)\n"
        "for block in (0, 1, 2, 0):\n"
        "    residency.activate(block)\n"
        "    blocks[block][0].sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "assert residency.moved_bytes > 0\n"
        f"os.kill(os.getpid(), {int(number)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    assert done.returncode == -number, "it never came to its end"
    assert [name for name, what in snapshot(tmp_path).items() if what.startswith("file")] == []


@pytest.mark.slow
def test_without_asserts_a_check_is_what_it_is_with_them(tmp_path: Path, baseline: str) -> None:
    """Broken if something that guards input is an assert, which ``python -O`` leaves out."""
    write_project(tmp_path, "mine", "method", "", "pass")
    (tmp_path / "baseline").write_text(baseline.replace("\t1\t", "\tone\t"))
    status, out, err = dbbench(*CHECK, folder=tmp_path, python=("-O",))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "baseline:3: 'one' is no value" in err


def test_no_assert_guards_input() -> None:
    """Broken if a failing assert is caught and taken for bad input: without asserts the input is not looked at."""
    for path in Path(dbbench_package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            caught = ast.unparse(node.type) if isinstance(node, ast.ExceptHandler) and node.type else ""
            assert "AssertionError" not in caught, f"{path}:{getattr(node, 'lineno', 0)}"
