"""The far side of a process: what it makes of an exception, how it reports, and that it dies with its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_cells import make_cell

from dbbench.harness.child import WORKER, Work
from dbbench.harness.folder import Job
from dbbench.harness.worker import ERROR_LENGTH, Channel, describe
from dbbench.processes import python


class OutOfMemoryError(RuntimeError):
    """Stands for torch's own, which needs a device to be raised; it is known by its name."""


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (RuntimeError("not enough memory: you tried to allocate 8 bytes"), "out_of_memory", None),
        (OutOfMemoryError("CUDA ran out"), "out_of_memory", None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed", None),
        (ValueError("text about being out of memory"), "failed", None),
    ],
)
def test_an_exception_becomes_a_status_and_a_line(error: BaseException, status: str, line: str | None) -> None:
    """A cell out of memory that is listed as a failure of the code sends its reader to the wrong place."""
    got_status, got_line = describe(error)
    assert got_status == status
    assert line is None or got_line == line
    assert "\n" not in got_line


def test_a_real_refusal_of_memory_is_known_as_one() -> None:
    """Were Python's or torch's own words others than we look for, running out of memory would count as a fault."""
    with pytest.raises(MemoryError) as python:
        bytearray(1 << 62)
    with pytest.raises(RuntimeError) as allocator:
        torch.empty(1 << 60)
    assert describe(python.value)[0] == "out_of_memory"
    assert describe(python.value)[1].startswith("MemoryError (")
    assert describe(allocator.value)[0] == "out_of_memory"


def test_a_long_exception_is_cut() -> None:
    """A tensor printed into a message would push the record over its size."""
    _, line = describe(ValueError("x" * 10_000))
    assert len(line) == ERROR_LENGTH
    assert line.endswith("…")


def test_reports_never_wait_for_the_parent_but_the_failure_arrives() -> None:
    """A parent that is slow to read would otherwise slow the training that is being measured."""
    reader, writer = os.pipe()
    channel = Channel(writer)
    started = time.monotonic()
    for step in range(5000):  # 60 bytes each: far more than the 64 KiB that a pipe holds
        channel.report({"stage": str(step), "step": step, "padding": "x" * 40})
    assert time.monotonic() - started < 5
    os.read(reader, 1 << 20)
    channel.fail("killed", "the end")
    os.close(writer)
    last = os.read(reader, 1 << 20).splitlines()[-1]
    os.close(reader)
    assert json.loads(last) == {"failed": "killed", "error": "the end"}


def test_reports_within_a_stage_are_thinned_and_a_new_stage_is_told_at_once() -> None:
    """A message a step costs the measured loop its time."""
    reader, writer = os.pipe()
    channel = Channel(writer)
    for step in range(1000):
        channel.report({"stage": "train", "step": step})
    channel.report({"stage": "test", "step": 0})
    lines = [json.loads(line) for line in os.read(reader, 1 << 20).splitlines()]
    os.close(reader)
    os.close(writer)
    assert lines[0] == {"stage": "train", "step": 0}
    assert lines[-1] == {"stage": "test", "step": 0}
    assert len(lines) < 50


def start_hanging_worker(folder: Path, parent: int) -> subprocess.Popen[bytes]:
    """Start a worker on a cell that never ends, as a parent of process id ``parent`` would."""
    job = Job(make_cell("hangs", "toy_methods.faulty:Hangs"), "0" * 16, "")
    work = Work("cell", (job,), "hangs", job.config_hash, 600)
    reader, writer = os.pipe()
    process = subprocess.Popen(
        python(WORKER),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=work.environment(),
        pass_fds=[writer],
        bufsize=0,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(json.loads(work.order(folder, writer)) | {"parent": parent}).encode() + b"\n")
    os.close(reader)
    os.close(writer)
    return process


def test_a_worker_ends_when_its_lifeline_does(tmp_path: Path, marked: Callable[[], list[int]]) -> None:
    """On a system without a parent-death signal this is all that keeps orphans from training on."""
    process = start_hanging_worker(tmp_path, os.getpid())
    time.sleep(0.5)
    assert process.poll() is None, "it ended before its lifeline did"
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 1


def test_a_worker_whose_parent_died_before_it_looked_ends(tmp_path: Path, marked: Callable[[], list[int]]) -> None:
    """The signal of a parent's death cannot come for a parent that is dead already."""
    process = start_hanging_worker(tmp_path, os.getppid())
    assert process.wait(timeout=20) == 1
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_worker_dies_with_its_parent_even_while_its_lifeline_is_held(
    tmp_path: Path, marked: Callable[[], list[int]]
) -> None:
    """A step that holds the interpreter's lock would keep the lifeline's thread from seeing that the parent is gone."""
    lifeline_out, lifeline_in = os.pipe()
    reader, writer = os.pipe()
    start = "import subprocess, sys; subprocess.Popen(sys.argv[2:], stdin=int(sys.argv[1]), close_fds=False).wait()"
    job = Job(make_cell("hangs", "toy_methods.faulty:Hangs"), "0" * 16, "")
    work = Work("cell", (job,), "hangs", job.config_hash, 600)
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(lifeline_out), *python(WORKER)],
        env=work.environment(),
        pass_fds=[lifeline_out, writer],
    )
    os.write(
        lifeline_in, json.dumps(json.loads(work.order(tmp_path, writer)) | {"parent": parent.pid}).encode() + b"\n"
    )
    os.close(writer)
    assert json.loads(os.read(reader, 4096).splitlines()[0])["stage"] == "trace", "it never came to its work"
    (worker,) = {pid for pid in marked() if b"dbbench.harness.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()} - {
        parent.pid
    }
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while worker in marked() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert worker not in marked()
    for descriptor in (lifeline_out, lifeline_in, reader):
        os.close(descriptor)
