"""From an empty folder to a report of a method of one's own, and every way of naming it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dbbench.cli import app


def dbbench(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_way", "test_own_way"):
        sys.modules.pop(name, None)
    return tmp_path


@pytest.mark.slow
def test_from_an_empty_folder_to_a_report(folder: Path) -> None:
    """A researcher with an idea has to read the source before anything runs."""

    def command(*words: str) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command("dbbench", "new-method", "own_way")
    method = folder / "own_way.py"
    line = "loss.backward()"
    assert method.read_text().count(line) == 1
    method.write_text(method.read_text().replace(line, "(loss + 0.01 * loss.square()).backward()"))
    assert "keeps the contract" in command("dbbench", "check-method", "own_way.py:OwnWay")
    shown = command(
        "dbbench", "run", "own_way.yaml", "--device", "cpu", "--set", "budget.value=1280", "--set", "seeds=[0]"
    )
    assert "own_way" in shown and "The report: runs/own_way/report.html" in shown
    assert (folder / "runs" / "own_way" / "report.html").exists()
    shown = command("dbbench", "report", "runs/own_way")
    assert "own_way" in shown
    assert "1 passed" in command("pytest", "-q", "-p", "no:cacheprovider", "test_own_way.py")


@pytest.mark.parametrize("where", [".", "below"])
def test_a_suite_finds_the_methods_beside_it(folder: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``dbbench run mine.yaml`` cannot import what lies beside it, and ``profile`` can."""
    assert dbbench("new-method", "own_way", "--out", where)[0] == 0
    suite = f"{where}/own_way.yaml"
    assert dbbench("run", suite, "--dry-run")[0] == 0
    text = Path(suite).read_text()
    Path(suite).write_text(text.replace("own_way.py:OwnWay", "own_way:OwnWay"))
    code, said = dbbench("run", suite, "--dry-run")
    assert code == 0, said


@pytest.mark.parametrize("name", ["1st", "a-b", "class", "", "../x", "ü"])
def test_what_is_no_name_is_refused(folder: Path, name: str) -> None:
    code, said = dbbench("new-method", name)
    assert (code, len(said.splitlines())) == (2, 1)
    assert list(folder.iterdir()) == []


def test_what_is_there_is_kept(folder: Path) -> None:
    (folder / "own_way.yaml").write_text("mine")
    code, said = dbbench("new-method", "own_way")
    assert (code, "is there already; nothing was written" in said) == (2, True)
    assert [path.name for path in folder.iterdir()] == ["own_way.yaml"]
    assert dbbench("new-method", "greedy")[0] == 2


def test_a_method_that_breaks_the_contract_is_told_how(folder: Path) -> None:
    """A mistake is told in the words of whatever failed last."""
    assert dbbench("new-method", "own_way")[0] == 0
    path = folder / "own_way.py"
    text = path.read_text()
    optimizers = 'self.optimizers = [self.setting.optimizer.make({"all": self.model.parameters()})]'
    path.write_text(text.replace("self.model = self.network\n", "pass\n").replace(optimizers, "self.optimizers = []"))
    code, said = dbbench("check-method", "own_way.py:OwnWay")
    assert code == 2
    assert "prepare: must set self.model to a torch module, and sets self.model to None" in said
    sys.modules.pop("own_way", None)
    path.write_text(text.replace("optimizer.zero_grad(set_to_none=True)", "pass"))
    code, said = dbbench("check-method", "own_way.py:OwnWay")
    assert code == 1
    assert "leaves gradients behind" in said
    assert "✓ split and plan" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch.py:M"], "no file 'nosuch.py'"),
        (["nosuch:M"], "no module 'nosuch'"),
        (["gredy"], "did you mean 'greedy'?"),
        (["greedy", "--set", "blocks"], "write KEY=VALUE"),
        (["greedy", "--suite", "smoke", "--set", "a=1"], "a suite's has its options there"),
        (["nobody", "--suite", "smoke"], "no variant 'nobody'"),
    ],
)
def test_a_slip_is_one_line(folder: Path, words: list[str], said: str) -> None:
    code, output = dbbench("check-method", *words)
    assert (code, len(output.splitlines())) == (2, 1), output
    assert said in output


@pytest.mark.parametrize("method", ["backprop", "greedy"])
def test_ours_keep_it(folder: Path, method: str) -> None:
    code, said = dbbench("check-method", method)
    assert code == 0, said
    assert said.count("✓") == 7
