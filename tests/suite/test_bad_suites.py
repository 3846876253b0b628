"""Every kind of unusable suite ends in one clear line and status 2, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dbbench.cli import app

GOOD = """\
suite: mine
task: {name: fashion_mnist_10k}
network: {name: vit, size: micro, depth: 4, patch: 7}
optimizer: {lr: 1e-3}
budget: {kind: layer_updates, value: 8}
batch_size: 4
seeds: [0]
methods:
  backprop: {}
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def in_methods(line: str) -> str:
    return GOOD + f"  {line}\n"


# kind: (the file's content, what the line must say)
BAD: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "unknown key": (GOOD + "sedes: [0]\n", ("sedes: unknown key", "'seeds'")),
    "unknown key below": (changed("lr:", "l:"), ("optimizer.l: unknown key", "'lr'")),
    "missing key": (changed("batch_size: 4\n", ""), ("batch_size: is missing",)),
    "text for a number": (changed("1e-3", '"0.1"'), ("optimizer.lr", "number", "'0.1'")),
    "boolean for a list": (changed("[0]", "true"), ("seeds", "list", "True")),
    "boolean for a number": (changed("batch_size: 4", "batch_size: true"), ("batch_size", "integer", "True")),
    "fraction for a count": (changed("batch_size: 4", "batch_size: 4.5"), ("batch_size", "integer", "4.5")),
    "number for a mapping": (changed("{lr: 1e-3}", "3"), ("optimizer: must be a mapping", "3")),
    "nothing for a mapping": (changed("backprop: {}", "backprop:"), ("methods.backprop: must be a mapping", "null")),
    "negative budget": (changed("value: 8", "value: -8"), ("budget.value", "greater than 0", "-8")),
    "infinite budget": (changed("value: 8", "value: .inf"), ("line 5", "'.inf'", "finite")),
    "overflowing number": (changed("value: 8", "value: 1e999"), ("line 5", "too large")),
    "endless digits": (changed("value: 8", "value: " + "9" * 5000), ("line 5", "too large")),
    "unknown budget": (changed("layer_updates", "epochs"), ("budget.kind", "'layer_updates'", "'epochs'")),
    "no seeds": (changed("[0]", "[]"), ("seeds: must not be empty",)),
    "a seed twice": (changed("[0]", "[0, 1, 0]"), ("seeds: must not give 0 twice",)),
    "negative seed": (changed("[0]", "[-1]"), ("seeds[0]", "-1")),
    "no methods": (changed("\n  backprop: {}", " {}"), ("methods: must not be empty",)),
    "bad label": (in_methods('"a/b": {method: backprop}'), ("methods: the label 'a/b' must be", "letters")),
    "name that leaves the folder": (changed("mine", "../mine"), ("suite: '../mine' must be", "letters")),
    "empty grid": (GOOD + "grid: {}\n", ("grid: must not be empty",)),
    "grid key without values": (GOOD + "grid: {network.depth: []}\n", ("grid.network.depth: must not be empty",)),
    "unknown grid key": (GOOD + "grid: {netwrk.depth: [2]}\n", ("grid.netwrk.depth", "'network'")),
    "grid over an unknown variant": (GOOD + "grid: {methods.bakprop.k: [2]}\n", ("'bakprop'", "'backprop'")),
    "grid over seeds": (GOOD + "grid: {seeds: [[0], [1]]}\n", ("grid.seeds", "cannot be a key")),
    "grid of a wrong type": (GOOD + "grid: {network.depth: [2, x]}\n", ("grid.network.depth", "integer", "'x'")),
    "grid of millions": (
        GOOD + "grid:\n" + "".join(f"  network.k{i}: {list(range(9))}\n" for i in range(9)),
        ("grid", "cells", "10,000"),
    ),
    "override of a wrong type": (in_methods("other: {method: backprop, batch_size: x}"), ("methods.other.batch_size",)),
    "override of an unknown key": (
        in_methods("other: {method: backprop, optimizer: {l: 1}}"),
        ("methods.other.optimizer.l: unknown key", "'lr'"),
    ),
    "method that is no name": (in_methods("other: {method: 3}"), ("methods.other.method", "3")),
    "tab": (changed("  backprop", "\tbackprop"), ("line 9", "tab")),
    "duplicate key": (GOOD + "seeds: [1]\n", ("line 10", "'seeds' is given twice")),
    "python tag": (changed("[0]", "!!python/object/apply:os.getcwd []"), ("line 7", "python/object", "not allowed")),
    "other tag": (changed("[0]", "!seeds [0]"), ("line 7", "'!seeds'", "not allowed")),
    "alias": (changed("[0]", "&s [0]") + "grid: {threads: *s}\n", ("line 7", "anchors and aliases")),
    "bomb": (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        ("line 1", "anchors and aliases"),
    ),
    "nesting of lists 3,000 deep": ("a: " + "[" * 3000 + "]" * 3000, ("nested deeper than 30",)),
    "nesting of mappings 3,000 deep": ("{a: " * 3000 + "1" + "}" * 3000, ("nested deeper than 30",)),
    "not UTF-8": (changed("mine", "m\xefne").encode("latin-1"), ("is not UTF-8", "byte 8")),
    "control characters": (changed("mine", "m\x00ne"), ("character 8", "not allowed")),
    "too large": (GOOD + "#" * (1 << 20), ("bytes long", "1,048,576")),
    "empty": ("", ("is empty",)),
    "a list at the top": ("- suite\n", ("must be a mapping at the top",)),
    "two documents": (GOOD + "---\n" + GOOD, ("line 10", "second document")),
    "key that is no string": (GOOD + "1: 2\n", ("line 10", "'1' is not a string")),
    "key that is a list": (GOOD + "? [a]\n: 2\n", ("line 10", "key must be a string")),
    "unclosed bracket": (changed("[0]", "[0"), ("line",)),
    # what only the method, the task and the network know
    "unknown method": (in_methods("other: {method: bakprop}"), ("methods.other.method", "'backprop'")),
    "method that cannot be imported": (in_methods("other: {method: 'no_such:M'}"), ("methods.other.method", "no_such")),
    "unknown task": (changed("fashion_mnist_10k", "fashion_mist_10k"), ("task.name", "'fashion_mnist_10k'")),
    "unknown network": (changed("vit", "vitt"), ("network.name", "'vit'")),
    "unknown size": (changed("micro", "mikro"), ("network.size", "'micro'")),
    "unknown option": (in_methods("other: {method: greedy, layers: 2}"), ("methods.other.layers", "layers_per_stage")),
    "more blocks than layers": (
        in_methods("other: {method: diffusion_blocks, blocks: 5}"),
        ("methods.other", "5", "4"),
    ),
    "layers that do not sum": (
        in_methods("other: {method: diffusion_blocks, blocks: 2, layers_per_block: [1, 2]}"),
        ("methods.other", "4"),
    ),
}


def outcome(arguments: list[str]) -> str:
    """Run the command line in this process and return its one line; fail unless it is one, with status 2."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert len(lines[0]) < 500
    assert lines[0].startswith("dbbench: ")
    assert not result.stdout
    return lines[0]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_suite_is_one_clear_line_and_status_2(kind: str, tmp_path: Path) -> None:
    """Broken if a mistake in a suite is accepted, shows a traceback, is not located, or leaves a run's folder."""
    content, expected = BAD[kind]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = outcome(["run", str(file), "--device", "cpu", "--out", str(tmp_path / "out")])
    assert f"{file}: " in line
    for fragment in expected:
        assert fragment in line.split(f"{file}: ", 1)[1]
    assert not (tmp_path / "out").exists()


def test_a_good_suite_is_accepted(tmp_path: Path) -> None:
    """Broken if the file that every bad one is made from were bad itself, so that they prove nothing."""
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    result = CliRunner().invoke(app, ["run", str(file), "--device", "cpu", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "1 cells" in result.stdout


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    """Broken if a folder, a missing file, a pipe or an impossible name ends in a traceback, or waits for input."""
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is a folder" in outcome(["run", str(tmp_path)])
    assert "no such file" in outcome(["run", str(tmp_path / "none.yaml")])
    assert "not a regular file" in outcome(["run", str(tmp_path / "pipe.yaml")])
    assert "cannot be read" in outcome(["run", "x" * 5000])
    assert "(did you mean 'vision'?)" in outcome(["run", "visoin"])


def test_one_bad_suite_among_several_stops_all_of_them_before_the_first_runs(tmp_path: Path) -> None:
    """Broken if hours of training come before the message that the second suite cannot be used."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(changed("lr:", "l:"))
    assert "bad.yaml: optimizer.l" in outcome(
        ["run", str(good), str(bad), "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["unknown key below", "nesting of lists 3,000 deep"])
def test_a_real_process_prints_the_same_line(kind: str, tmp_path: Path) -> None:
    """Broken if the installed command shows a traceback where the in-process one does not."""
    content, expected = BAD[kind]
    file = tmp_path / "mine.yaml"
    file.write_text(str(content))
    command = [sys.executable, "-m", "dbbench", "run", str(file), "--device", "cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert expected[0] in done.stderr
