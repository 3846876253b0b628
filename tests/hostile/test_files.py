"""The rules for files: what is read is regular and bounded, what is written is neither an input nor a stranger's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbbench.errors import BadInput
from dbbench.files import check_outputs, check_own, probe, read
from dbbench.plain import cell, harmless


def made(folder: Path, kind: str) -> Path:
    path = folder / "thing"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "long":
            with path.open("wb") as file:
                file.truncate(101)
    return path


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "loop", "long", "missing"])
def test_what_is_no_bounded_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A reader hangs for ever, or fills the memory."""
    with pytest.raises(OSError) as refused:
        read(made(tmp_path, kind), most_bytes=100)
    assert refused.value.filename == str(tmp_path / "thing")
    assert refused.value.strerror


@pytest.mark.parametrize("name", ["same", "link", "hard link", "other spelling", "inside"])
def test_an_output_is_no_input(tmp_path: Path, name: str) -> None:
    """``--json`` on the baseline loses the baseline."""
    given = tmp_path / "folder" / "b.txt"
    given.parent.mkdir()
    given.write_text("kept")
    output, source = given, given
    match name:
        case "link":
            output = tmp_path / "link"
            output.symlink_to(given)
        case "hard link":
            output = tmp_path / "hard"
            output.hardlink_to(given)
        case "other spelling":
            output = given.parent / ".." / "folder" / "b.txt"
        case "inside":
            source = given.parent
    with pytest.raises(BadInput, match="--json would overwrite the baseline"):
        check_outputs({"--json": output}, {"the baseline": source})
    check_outputs({"--json": tmp_path / "new", "--junit": None}, {"the baseline": source})


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="same file"):
        check_outputs({"--json": tmp_path / "j", "--junit": tmp_path / "." / "j"}, {})
    check_outputs({"--json": Path("/dev/null"), "--junit": Path("/dev/null")}, {})


def test_a_strangers_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text("a diary")
    with pytest.raises(BadInput, match="did not write"):
        check_own(path, "--json", [b"ours"])
    check_own(path, "--json", [b"ours"], force=True)
    path.write_text("ours, of before")
    check_own(path, "--json", [b"ours"])
    check_own(tmp_path / "new", "--json", [b"ours"])


def test_a_probe_leaves_nothing_and_says_what_will_fail(tmp_path: Path) -> None:
    probe(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        probe(tmp_path / "file" / "below")


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x9b2J", "turned \u202e round", "bell\a"])
def test_foreign_text_drives_no_terminal(text: str) -> None:
    assert harmless(text).isprintable()
    assert harmless("two\nlines\tand") == "two\nlines\tand"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text)[0] == "'"


@pytest.mark.parametrize("verb", ["new", "old"])
def test_a_write_that_is_cut_short_leaves_the_old_file_or_none(tmp_path: Path, verb: str) -> None:
    """The system takes a part of a write and refuses the rest: half a baseline stands where a whole one was."""
    path = tmp_path / "baseline"
    if verb == "old":
        path.write_bytes(b"whole")
    code = (
        "import resource, signal, sys; from pathlib import Path; from dbbench.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_atomically(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except OSError as error: print(error.filename, error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(path)
    assert "File too large" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == (["baseline"] if verb == "old" else [])
    assert verb == "new" or path.read_bytes() == b"whole"
