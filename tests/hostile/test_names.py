"""Names that no file, user or text can have, wherever a verb takes one: one line and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile.folders import nothing_lost
from hostile.strangers import dbbench, write_project

from dbbench.errors import BadInput
from dbbench.suite.plain_yaml import parse

LONG = "x" * 5000
DEEP = "/".join(["x" * 200] * 25)
PATHS = {
    "run": "run PATH",
    "run's folder": "run strange.yaml --device cpu --out PATH",
    "report": "report PATH",
    "report's page": "report run run2 --out PATH",
    "figure": "figure memory-split PATH",
    "compare": "compare PATH PATH",
    "diff": "diff PATH PATH",
    "check": "check PATH --baseline b",
    "check's suite": "check --fake PATH --baseline b",
    "check's baseline": "check --fake strange.yaml --baseline PATH",
    "estimate": "estimate PATH",
    "estimate's folder": "estimate strange.yaml --out PATH",
    "fit": "fit PATH --memory 1GiB",
    "fit's folder": "fit strange.yaml --memory 1GiB --out PATH",
    "scaling's folder": "scaling strange.yaml --out PATH",
    "calibrate's folder": "calibrate --suite strange.yaml --device cpu --out PATH",
    "profile": "profile PATH.py:make_step",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", [LONG, DEEP], ids=["long", "deep"])
@pytest.mark.parametrize("verb", PATHS)
def test_a_path_that_is_too_long_is_one_line(
    verb: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken if the system's refusal of a name shows a traceback."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "unused", "none", "", "pass")
    with nothing_lost(tmp_path):
        done = dbbench(*(word.replace("PATH", path) for word in PATHS[verb].split()))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("dbbench: ")


@pytest.mark.parametrize("text", [r'"\uD800"', r'{"\uDFFF": 1}', r'[a, "x\udc80y"]'])
def test_half_a_character_is_refused_where_it_stands(text: str) -> None:
    """Broken if a text that nothing can print gets into a record or a message."""
    with pytest.raises(BadInput, match=r"^s\.yaml: line 1: half a character"):
        parse(text, "s.yaml")


@pytest.mark.parametrize("place", ["name", "option", "method"])
def test_half_a_character_in_a_suite_is_one_line(place: str, tmp_path: Path) -> None:
    """Broken if a name of one surrogate ends in a UnicodeEncodeError of whoever prints it."""
    half = r'"\uD800"'
    text = write_project(tmp_path, "unused", "none", "", "pass").suite.read_text()
    change = {"name": ("vit", half), "option": ("patch: 4", f"patch: {half}"), "method": ("backprop", half)}[place]
    (tmp_path / "strange.yaml").write_text(text.replace(*change))
    done = dbbench("check", "--fake", tmp_path / "strange.yaml", "--baseline", tmp_path / "none")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output


@pytest.mark.parametrize("task", ["cifar10", "text_folder", "fashion_mnist"])
def test_a_folder_of_nobodys_is_one_line(task: str, tmp_path: Path) -> None:
    """Broken if a tilde with a name that the system does not know is a RuntimeError of pathlib's."""
    text = write_project(tmp_path, "unused", "none", "", "pass").suite.read_text()
    folder = f"{{name: {task}, folder: ~nosuchuser/data}}"
    text = text.replace("{name: digits}", folder)
    text = text.replace(
        "name: vit, size: tiny, depth: 1, patch: 4",
        "name: llama, size: micro" if task == "text_folder" else "name: linear",
    )
    (tmp_path / "strange.yaml").write_text(text)
    done = dbbench("run", tmp_path / "strange.yaml", "--device", "cpu", "--out", tmp_path / "out")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
    assert "~nosuchuser/data: there is no such user" in done.stderr


def test_a_check_of_no_suite_is_bad_input_even_without_a_baseline(tmp_path: Path) -> None:
    """Broken if the lowest status that applies is not the one given: 2 comes before 3."""
    for fake in ("nosuch", str(tmp_path / "none.yaml")):
        done = dbbench("check", "--fake", fake, "--baseline", tmp_path / "none")
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
    done = dbbench("check", tmp_path / "no-run", "--baseline", tmp_path / "none")
    assert done.exit_code == 2
