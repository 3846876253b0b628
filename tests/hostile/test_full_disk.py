"""A file that cannot be written ends a verb in one line with status 1, and what was finished stays."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.files import write_atomically

ERRORS = ("ENOSPC", "EROFS", "EACCES", "EMFILE", "EIO")
SUITE = "smoke"


def make_step() -> Any:
    import torch

    model = torch.nn.Linear(4, 4)
    return model, torch.optim.SGD(model.parameters(), lr=0.1), lambda: model(torch.ones(2, 4)).sum().backward()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one tiny cell."""
    from tiny_cells import make_cell, run_tiny

    out = tmp_path_factory.mktemp("full") / "run"
    status, _ = run_tiny([make_cell("backprop")], out, report=True)
    assert status == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def verbs(run: Path, out: Path) -> Iterator[tuple[str, list[object]]]:
    yield "report", ["report", run]
    yield "figure", ["figure", "memory-split", run, "--out", out / "figure.png"]
    yield "profile", ["profile", f"{__file__}:make_step", "--out", out / "profile", "--steps", 1]
    yield "fit", ["fit", SUITE, "--memory", "1GiB", "--only", "variant=backprop", "--out", out / "fit"]
    yield "estimate", ["estimate", SUITE, "--only", "variant=backprop", "--out", out / "estimate"]
    yield "check --update", ["check", run, "--baseline", out / "baseline.txt", "--update"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every file that is begun fail with an error."""

    def fail(name: str) -> None:
        number = getattr(errno, name)

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise OSError(number, os.strerror(number))

        if name == "ENOSPC":  # a file can be made, and has no room
            monkeypatch.setattr(os, "fsync", refuse)
        else:
            monkeypatch.setattr(tempfile, "mkstemp", refuse)

    return fail


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["report", "figure", "profile", "fit", "estimate", "check --update"])
def test_a_write_that_fails_is_one_line(
    run_folder: Path, tmp_path: Path, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A full disk ended in a traceback, and what had been measured was gone."""
    arguments = dict(verbs(run_folder, tmp_path))[verb]
    before = contents(run_folder)
    for name in ERRORS if verb in ("report", "figure") else ERRORS[:2]:
        with monkeypatch.context():
            failing(name)
            result = invoke(*arguments)
        monkeypatch.undo()
        said = result.stderr.strip().splitlines()
        assert result.exit_code in (1, 2), (name, result.output)
        assert os.strerror(getattr(errno, name)) in said[-1]
        assert "Traceback" not in result.output
        assert str(tmp_path) in said[-1] or str(run_folder) in said[-1]
        if verb in ("profile", "fit") and name == "ENOSPC":  # the others show before anything is measured
            assert "MiB" in result.stdout  # what was measured is printed all the same
    assert contents(run_folder) == before
    assert not list(run_folder.rglob(".*.tmp"))
    assert invoke(*arguments).exit_code == 0


def test_what_is_no_regular_file_is_written_to_and_links_are_followed(tmp_path: Path) -> None:
    """A device node became a file: as root in a container, --junit /dev/null would break the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(tmp_path / "link.txt", b"new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_the_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as refused:
        write_atomically(tmp_path / "folder", b"")
    assert refused.value.filename == str(tmp_path / "folder")


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("dbbench ")
