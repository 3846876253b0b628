"""Every verb × everything a file can be in the place of one that it reads or writes.

Whatever it is: the documented status, one line that names the file, no traceback, no waiting for ever, and the folder
as it was.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from click.testing import Result
from hostile.folders import added, lost, snapshot
from hostile.sampling import sample
from hostile.strangers import STEP, dbbench, write_project
from tiny_cells import make_cell, run_tiny
from typer.testing import CliRunner

from dbbench.cli import app

pytestmark = pytest.mark.slow

#: No verb here works for as long; one that waits for a pipe does so for ever.
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a suite, a step of its own, a finished run, a baseline of it, a fit, a scaling and a profile."""
    folder = tmp_path_factory.mktemp("made")
    write_project(folder, "own", "none", "", "pass")
    (folder / "step.py").write_text("def at(place): pass\n" + STEP)
    status, shown = run_tiny([make_cell("backprop")], folder / "run", trace=False)
    assert status == 0, shown
    shutil.copytree(folder / "run", folder / "run2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "check run --baseline b --update",
            "fit strange.yaml --memory 1GiB --max 16 --out fit",
            "scaling strange.yaml --over batch --values 8,16,32 --out scaling",
            "profile step.py:make_step --out profile",
        ):
            done = dbbench(*line.split())
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, worked in; whoever waits is ended."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)

    def too_long(number: int, frame: object) -> None:
        pytest.fail("it waits for ever")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(WAIT_SECONDS)
    yield folder
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(to: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(path if to == "itself" else to)

    return make


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _text(body: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(body) and None


def _half(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2])


#: What stands where a file is read.
BROKEN: dict[str, Callable[[Path], None]] = {
    "pipe": _pipe,
    "endless": _link("/dev/zero"),
    "terminal": _link("/dev/tty"),
    "loop": _link("itself"),
    "dangling": _link("gone/and/away"),
    "folder": _folder,
    "missing": lambda path: path.unlink(),
    "empty": _text(b""),
    "half": _half,
    "zeros": _text(bytes(4096)),
    "binary": _text(bytes(range(256)) * 16),
    "latin": _text("é: ü\n".encode("latin-1")),
    "number": _text(b"1"),
    "list": _text(b"[1, [2], {}]"),
    "null": _text(b"null"),
    "text": _text(b'"all is well"'),
    "object": _text(b"{}"),
    "wrong types": _text(b'{"suite": [], "methods": 3, "cells": [1], "kind": {}, "row": null, "jobs": "x", "held": 1}'),
    "deep": _text(b"[" * 100_000),
    "surrogate": _text(b'{"suite": "\\ud800"}'),
    "huge number": _text(b'{"suite": ' + b"9" * 5000 + b"}"),
    "nan": _text(b'{"cells": NaN, "row": {"peak_bytes": Infinity}}'),
}
#: A verb that reads a file, by the file: {run}'s own are found by suffix.
READS = {
    "strange.yaml": (
        "run strange.yaml --dry-run", "check --fake strange.yaml --baseline b", "estimate strange.yaml",
        "fit strange.yaml --memory 1GiB", "scaling strange.yaml", "calibrate --suite strange.yaml --device cpu",
    ),
    "step.py": ("profile step.py:make_step",),
    "b": ("check run --baseline b", "check run --baseline b --update"),
    "run/run.json": (
        "report run", "figure memory-split run", "compare run run", "diff run run", "check run --baseline b",
        "run strange.yaml --device cpu --out run",
    ),
    "run/records": (
        "report run", "figure memory-split run", "compare run run", "diff run run", "check run --baseline b",
    ),
    "run/traces": ("report run", "figure timeline run", "diff run run"),
    "run/curves": ("report run", "figure learning run"),
    "fit/fit.json": ("report fit",),
    "scaling/scaling.json": ("report scaling", "figure scaling scaling"),
    "profile/profile.json": ("diff profile profile",),
}  # fmt: skip
#: Without one of these the rest is reported, and what could not be read is named.
HARMLESS_RUN = ("missing", "object", "surrogate")  # an object of nothing that is looked at
GOES_ON = ("run/run.json", "run/records", "run/traces", "run/curves")


def the_file(folder: Path, name: str) -> Path:
    path = folder / name
    return sorted(p for p in path.iterdir() if p.is_file())[0] if path.is_dir() else path


def quickly(line: str) -> Result:
    """Run a command; of a report all is written but its figures and its page, which take longer than all else."""
    if not line.startswith("report"):
        return dbbench(*line.split())
    with (
        mock.patch("dbbench.report.summary.write_figures", return_value={}),
        mock.patch("dbbench.report.summary.write_page"),
        mock.patch("dbbench.report.page.write_page"),
    ):
        return CliRunner().invoke(app, line.split())


def told_well(done: Result, statuses: tuple[int, ...]) -> list[str]:
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in statuses, (done.exit_code, done.output)
    assert "Traceback" not in done.output
    return [line for line in done.stderr.splitlines() if line.startswith("dbbench: ")]


def _reads() -> list[tuple[str, str, str]]:
    """Return (file, command, kind)."""
    return sample([(name, line, kind) for name, lines in READS.items() for line in lines for kind in BROKEN], 2)


@pytest.mark.parametrize(("name", "line", "kind"), _reads())
def test_whatever_is_read_in_a_files_place(project: Path, name: str, line: str, kind: str) -> None:
    path = the_file(project, name)
    BROKEN[kind](path)
    before = snapshot(project)
    done = quickly(line)
    after = snapshot(project)
    if name in GOES_ON and not line.startswith("run "):
        told_well(done, (0, 1, 2, 4))
        nothing_to_tell = kind == "missing" or (name == "run/run.json" and kind in HARMLESS_RUN)
        assert nothing_to_tell or path.name in done.output
        assert f"{name}/{path.name}" not in lost(before, after)
        return
    if name == "run/run.json" and kind in HARMLESS_RUN:
        return  # the run writes it anew
    if name == "b" and kind in ("missing", "dangling"):
        told_well(done, (0,) if line.endswith("--update") else (3,))  # the update makes the file
        return
    told = told_well(done, (2,))
    assert len(told) == 1, done.output
    assert Path(name).name in told[0] or name.split("/")[0] in told[0], told
    assert not lost(before, after)
    assert not added(before, after)


#: A verb that writes a file where OUT stands, and what it reads beside it.
WRITES = {
    "check --json": ("check run --baseline b --json OUT", ("b", "run/run.json")),
    "check --junit": ("check run --baseline b --junit OUT", ("b", "run/run.json")),
    "check --update": ("check run --baseline OUT --update", ("run/run.json",)),
    "report --claims": ("report run --claims OUT", ("run/run.json",)),
    "figure": ("figure memory-split run --out OUT.pdf", ("run/run.json",)),
    "figure png": ("figure memory-split run --out OUT.png", ("run/run.json",)),
}
FOLDERS = {
    "report --out": "report run run2 --out OUT",
    "run": "run strange.yaml --device cpu --out OUT",
    "estimate": "estimate strange.yaml --out OUT",
    "fit": "fit strange.yaml --memory 1GiB --max 8 --out OUT",
    "scaling": "scaling strange.yaml --over batch --values 8,16 --out OUT",
    "calibrate": "calibrate --suite strange.yaml --device cpu --out OUT",
    "profile": "profile step.py:make_step --out OUT",
}


def _stranger(path: Path) -> None:
    path.write_text("a diary, and nobody's to touch\n")


def _below(path: Path) -> None:
    _stranger(path)


#: What stands where a file is to be written.
IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "folder": _folder,
    "loop": _link("itself"),
    "stranger": _stranger,
    "link to a stranger": _link("notes.txt"),
    "full": _link("/dev/full"),
    "below a file": _stranger,
    "below the system": _link("/proc"),
}
#: What may stand there: it is written, and what it is stays.
FINE: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "empty file": _text(b""),
    "link to nothing": _link("made-later"),
    "null": _link("/dev/null"),
}


def out_of(line: str, path: Path) -> tuple[list[str], Path]:
    """Return the command, and the file it writes, with the suffix that it must have."""
    words = line.split()
    (word,) = [word for word in words if word.startswith("OUT")]
    target = path.with_name(path.name + word.removeprefix("OUT"))
    return [str(target) if w == word else w for w in words], target


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("verb", WRITES)
def test_what_is_in_an_outputs_way_is_told_and_kept(project: Path, verb: str, kind: str) -> None:
    words, target = out_of(WRITES[verb][0], project / "out")
    IN_THE_WAY[kind](target)
    if kind.startswith("below"):
        words = [word.replace(str(target), str(target / "x" / target.name)) for word in words]
    before = snapshot(project)
    done = quickly(" ".join(words))
    told = told_well(done, (1, 2))
    assert len(told) == 1, done.output
    assert "out" in told[0]
    after = snapshot(project)
    assert not lost(before, after)
    # only the write itself shows that a device is full: by then the run's own report is there
    assert not [name for name in added(before, after) if not (kind == "full" and name.startswith("run/"))]


@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("verb", WRITES)
def test_what_is_in_nobodys_way_is_written(project: Path, verb: str, kind: str) -> None:
    if verb == "check --update" and kind in ("empty file", "null"):
        return  # what is there has to be a baseline
    words, target = out_of(WRITES[verb][0], project / "out")
    FINE[kind](target)
    before = snapshot(project)
    done = quickly(" ".join(words))
    told_well(done, (0,))
    after = snapshot(project)
    assert not [name for name in lost(before, after) if not name.startswith(("out", "run/"))]
    assert target.is_symlink() == kind.startswith(("link", "null"))
    if kind != "null":
        assert target.stat().st_size


@pytest.mark.parametrize("way", ["name", "link", "other spelling", "hard link"])
@pytest.mark.parametrize(("verb", "given"), [(verb, given) for verb, (_, reads) in WRITES.items() for given in reads])
def test_no_output_replaces_what_the_verb_reads(project: Path, verb: str, given: str, way: str) -> None:
    source = project / given
    words, target = out_of(WRITES[verb][0], project / "out")
    match way:
        case "link":
            target.symlink_to(source)
        case "hard link":
            target.hardlink_to(source)
        case _:
            spelled = project / "run" / ".." / given if way == "other spelling" else source
            if target.suffix:
                return  # no input of a figure has a figure's suffix
            words = [word.replace(str(target), str(spelled)) for word in words]
    before = snapshot(project)
    done = quickly(" ".join(words))
    assert len(told_well(done, (2,))) == 1, done.output
    assert snapshot(project) == before


@pytest.mark.parametrize(
    "kind", ["file", "stranger's folder", "loop", "below a file", "full", "below the system", "read", "another kind"]
)
@pytest.mark.parametrize("verb", FOLDERS)
def test_what_is_in_an_output_folders_way_is_told_and_kept(project: Path, verb: str, kind: str) -> None:
    out = project / "out"
    match kind:
        case "file":
            _stranger(out)
        case "stranger's folder":
            out.mkdir()
            for name in ("report.html", "run.json", "fit.json", "scaling.json", "profile.json", "calibration.json"):
                (out / name).write_text("not yours")
        case "below a file":
            _stranger(out)
            out = out / "x" / "y"
        case "loop" | "full" | "below the system":
            IN_THE_WAY[kind](out)
            out = out / "x" if kind == "below the system" else out
        case "read":
            out = project / "strange.yaml"
        case "another kind":
            out = project / ("fit" if verb != "fit" else "scaling")
    before = snapshot(project)
    done = quickly(FOLDERS[verb].replace("OUT", str(out)))
    after = snapshot(project)
    assert not lost(before, after), done.output
    if kind == "another kind" and done.exit_code == 0:
        return  # it stands beside the other, and nothing is lost
    told = told_well(done, (1, 2))
    assert len(told) == 1, done.output
    assert not added(before, after)
