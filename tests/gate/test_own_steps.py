"""The gate on people's own models: what changed is named, nothing else is, and every way of naming a step is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gate.own import models
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.gate.baseline import Baseline
from dbbench.gate.check import Measurement, check
from dbbench.gate.own_steps import from_profiles
from dbbench.gate.result import Result
from dbbench.gate.show import Report, batch_factor
from dbbench.gate.update import update
from dbbench.profile.steps import profiled

MODELS = ("conv", "gpt2", "vit")
STEP = """
import torch

def make_step():
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones({rows}, 8)

    def step():
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return {{"model": model, "optimizer": optimizer, "step": step, "inputs": x}}
"""


def measured(name: str, monkeypatch: pytest.MonkeyPatch, planted: str = "", device: str = "fake") -> Measurement:
    monkeypatch.setattr(models, "PLANTED", planted)
    return from_profiles(profiled([f"gate.own.models:{name}"], device, {}), name, device, "", False)  # type: ignore[arg-type]


def expected(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str = "fake") -> Baseline:
    return update(Baseline(tmp_path / "b"), measured(name, monkeypatch, device=device))[0]


def told(result: Result) -> str:
    """Return all that a reader sees of the one cell."""
    return Report(result).markdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_ten_regressions_are_named_and_twenty_repeats_raise_no_alarm(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The gate guards our own methods alone, or cries wolf at a model of somebody's."""
    baseline = expected(name, monkeypatch, tmp_path)
    for regression, roles in models.REGRESSIONS.items():
        result = check(baseline, measured(name, monkeypatch, regression))
        assert result.status == 1, regression
        (cell,) = result.cells
        if roles is None:
            assert batch_factor(cell) == pytest.approx(2), regression
        elif not roles:
            assert {f.metric for f in cell.changed if f.group == "FLOPs"} >= {"flops_forward"}, regression
            assert batch_factor(cell) is None
        else:
            assert any(role in told(result) for role in roles), (regression, told(result))
            assert batch_factor(cell) is None
    for _ in range(20):
        assert check(baseline, measured(name, monkeypatch)).status == 0


@pytest.mark.parametrize("device", ["fake", "cpu"])
def test_a_regression_of_a_convolution_is_named(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    baseline = expected("conv", monkeypatch, tmp_path, device)
    assert check(baseline, measured("conv", monkeypatch, device=device)).status == 0
    result = check(baseline, measured("conv", monkeypatch, "keeps_the_loss", device))
    assert result.status == 1
    assert "retained" in told(result)


def test_recomputation_that_was_lost_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    baseline = expected("checkpointed", monkeypatch, tmp_path)
    assert "activations" in told(check(baseline, measured("checkpointed", monkeypatch, "lost")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_step.py").write_text(STEP.format(rows=16))
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", *words], env={"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_step_by_its_file_from_no_baseline_to_one_that_holds(project: Path) -> None:
    assert run("own_step.py:make_step", "--baseline", "b")[0] == 3
    assert run("own_step.py:make_step", "--baseline", "b", "--update")[0] == 0
    code, said = run("own_step.py:make_step", "--baseline", "b", "--json", "j", "--junit", "x", "--markdown", "m")
    assert (code, "nothing changed" in said) == (0, True)
    assert json.loads((project / "j").read_text())["cells"][0]["outcome"] == "same"
    assert (project / "m").read_text().startswith("<!-- dbbench check -->")
    assert run("own_step.py:make_step", "--baseline", "b", "--device", "cpu")[0] == 5


def test_the_steps_of_a_project_are_listed_in_its_file(project: Path) -> None:
    """Whoever adds a step has to change the workflow, or one that is gone is not missed."""
    (project / "other.py").write_text(STEP.format(rows=8))
    table = '[tool.dbbench.check]\nbaseline = "memory.txt"\nsteps = ["own_step.py:make_step", "other.py:make_step"]\n'
    (project / "pyproject.toml").write_text(table)
    assert run("--update")[0] == 0
    code, said = run()
    assert (code, "2 cells, 2 of them the same" in said) == (0, True), said
    (project / "pyproject.toml").write_text(table.replace(', "other.py:make_step"', ""))
    code, said = run()
    assert (code, "missing from the run" in said) == (4, True), said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[tool.dbbench.check]\nstep = []", "tool.dbbench.check.step: no such key (did you mean 'steps'?)"),
        ("[tool.dbbench.check]\nsteps = 'a:b'", "steps: is no list of texts"),
        ("[tool.dbbench.check]\nsteps = ['a:b']\nbaseline = 3", "baseline: is no text"),
        ("[tool.dbbench.check]\nsteps = ['a:b']\nbaseline = 'b'\ndevice = 'gpu'", "device: 'gpu'"),
        ("[tool", "pyproject.toml: "),
        ("", "give a run's folder, a step of your own"),
    ],
)
def test_a_slip_in_the_projects_file_is_one_line(project: Path, table: str, words: str) -> None:
    (project / "pyproject.toml").write_text(table)
    code, said = run()
    assert (code, len(said.splitlines())) == (2, 1), said
    assert words in said


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("hf:gpt3", "'gpt3' is no model type of transformers, nor a local folder (did you mean 'gpt"),
        ("hf:", "name a model type"),
        ("hf:gpt2,n_layers=2", "n_layers: no such setting (did you mean 'n_layer'?)"),
        ("hf:gpt2,batch=0", "batch: 0 is no whole number above 0"),
        ("hf:gpt2,sequence=4096", "sequence: 4096 is more than the model's 1024 positions"),
        ("hf:gpt2,optimizer=adamv", "optimizer: there is no 'adamv' (did you mean 'adam"),
        ("hf:gpt2,batch", "'batch' is no setting"),
        ("nosuch:step", "no module 'nosuch'"),
        ("own_step.py:nothing", "has no 'nothing'"),
        ("nowhere", "no such folder"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(project: Path, target: str, words: str) -> None:
    code, said = run(target, "--baseline", "b")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert words in said


def test_a_step_that_fails_is_a_failed_cell_and_the_others_are_compared(project: Path) -> None:
    assert run("own_step.py:make_step", "--baseline", "b", "--update")[0] == 0
    (project / "broken.py").write_text("def make_step():\n    raise KeyError('where')\n")
    code, said = run("own_step.py:make_step", "broken.py:make_step", "--baseline", "b")
    assert code == 4, said
    assert "KeyError: 'where'" in said and "1 of them the same" in said


def test_a_saved_profile_is_a_cell_too(project: Path) -> None:
    done = CliRunner().invoke(app, ["profile", "own_step.py:make_step", "--device", "fake", "--out", "kept"])
    assert done.exit_code == 0, done.output
    assert run("kept", "--baseline", "b", "--update")[0] == 0
    assert run("kept", "--baseline", "b")[0] == 0


def test_a_larger_batch_is_one_paragraph(project: Path) -> None:
    """One cause is told in a hundred and forty lines."""
    assert run("own_step.py:make_step", "--baseline", "b", "--update")[0] == 0
    (project / "larger.py").write_text(STEP.format(rows=32))
    text = (project / "b").read_text().replace("own_step.py", "larger.py")
    (project / "b").write_text(text)
    code, said = run("larger.py:make_step", "--baseline", "b")
    assert code == 1
    assert "FLOPs, activations and inputs are 2 × what they were" in " ".join(said.split())
    assert len(said.splitlines()) < 16


def test_a_model_of_transformers_needs_no_code(project: Path) -> None:
    small = "hf:gpt2,n_layer=1,n_embd=32,n_head=2,vocab_size=50"
    assert run(small, "--batch", "3", "--sequence", "16", "--baseline", "b", "--update")[0] == 0
    assert run(small, "--batch", "3", "--sequence", "16", "--baseline", "b")[0] == 0
    assert "batch=3" in (project / "b").read_text()
    code, _ = run(small, "--baseline", "b")
    assert code == 5, "another batch is another cell"
