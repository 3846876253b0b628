"""What ``dbbench profile`` is pointed at: every way of getting it wrong is one line that says how to get it right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.errors import BadInput
from dbbench.profile.target import Target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, not yet importable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("toy_train", "name a callable as package.module:callable"),
        (":make_step", "name a callable as package.module:callable"),
        ("toy_train:make_stp", "toy_train has no 'make_stp' (did you mean 'make_step'?)"),
        ("json.decodr:make", "no module 'json.decodr' (did you mean 'decoder'?)"),
        ("no_such_package_at_all:make", "no module 'no_such_package_at_all'"),
        ("no/such/file.py:make", "no file 'no/such/file.py'"),
        ("toy_train:NOT_CALLABLE", "'NOT_CALLABLE' is an int, not a callable"),
        ("toy_train:needs_more", "takes the parameter 'batch_size'"),
        ("toy_train:nothing", "returned an int without 'model'; it must give (model, optimizer, step)"),
        ("toy_train:two_things", "returned 2 things, not (model, optimizer, step)"),
        ("toy_train:without_step", "returned a dict without 'step'"),
        ("toy_train:misspelt", "unknown key 'optimiser' (did you mean 'optimizer'?)"),
        ("toy_train:no_module", "its model is a function, not a torch module"),
        ("toy_train:swapped", "its model is an AdamW, not a torch module"),
        ("toy_train:parameters_for_optimizer", "its optimizer is a Parameter, not a torch optimizer"),
        ("toy_train:loss_for_step", "its step is a Tensor, not a function that trains once"),
        ("toy_train:step_with_a_batch", "its step takes the parameter 'batch', and must take none"),
        ("toy_train:elsewhere", "its model is on cuda, to be profiled on cpu; let it take a parameter 'device'"),
        ("toy_train:raises", "fails with OSError: the data are gone (tests/profile/toy_train.py:"),
        ("toy_train:compiled", "is compiled by torch.compile"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(target: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger would read a traceback, or a line that does not say what to do."""
    monkeypatch.chdir(Path(__file__).parents[2])
    done = CliRunner().invoke(app, ["profile", target])
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert message in line


def test_scripts_beside_one_are_found_and_their_names_suggested(folder: Path) -> None:
    """``dbbench profile train:make_step`` would not find the script that lies right there."""
    (folder / "fine_tune_here.py").write_text("class Setting:\n    @staticmethod\n    def make():\n        return 1\n")
    assert Target("fine_tune_here:Setting.make").function() == 1
    assert Target("fine_tune_here.py:Setting.make").function() == 1
    with pytest.raises(BadInput, match=r"no module 'fine_tune_her' \(did you mean 'fine_tune_here'\?\)"):
        Target("fine_tune_her:make")
    with pytest.raises(BadInput, match=r"no file 'fine_tune_her.py' \(did you mean 'fine_tune_here.py'\?\)"):
        Target("fine_tune_her.py:make")
    with pytest.raises(BadInput, match=r"has no 'Setting.mak' \(did you mean 'make'\?\)"):
        Target("fine_tune_here:Setting.mak")


def test_a_script_takes_no_other_modules_name(folder: Path) -> None:
    """A script called ``profile.py`` would be what everybody else imports from then on."""
    import profile

    (folder / "profile.py").write_text("made = []\ndef make():\n    made.append(1)\n    return len(made)\n")
    assert Target("profile.py:make").function() == 1
    assert sys.modules["profile"] is profile
    (folder / "made_once.py").write_text("made = []\ndef make():\n    made.append(1)\n    return len(made)\n")
    assert [Target(f"{name}:make").function() for name in ("made_once", "made_once.py")] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\nimport no_such_library\n",
            "ModuleNotFoundError: No module named 'no_such_library' (FILE:2: import no_such",
        ),
        ("x = 1\nraise RuntimeError('no licence')\n", "RuntimeError: no licence (FILE:2: raise RuntimeError"),
        ("x = 1\ndef make_step(:\n", "SyntaxError: invalid syntax (FILE, line 2) (FILE:2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (FILE:2: sys.exit(3))"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".py"])
def test_a_module_that_fails_to_import_says_where(text: str, message: str, suffix: str, folder: Path) -> None:
    """The module would be called missing, or end our process for us."""
    name = f"fails_{len(text)}{'_file' if suffix else ''}"
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(BadInput) as caught:
        Target(f"{name}{suffix}:make_step")
    assert f"importing it fails with {message.replace('FILE', f'{name}.py')}" in str(caught.value)


def test_a_callable_is_told_the_device_only_if_it_asks(folder: Path) -> None:
    """A callable without the parameter could not be profiled, or one with a default would keep its own."""
    (folder / "asks_or_not.py").write_text(
        "from torch import nn\nimport torch\ntold = []\n"
        "def parts():\n"
        "    model = nn.Linear(1, 1)\n"
        "    return model, [torch.optim.SGD(model.parameters())], lambda: None\n"
        "def plain(): return parts()\n"
        "def asks(device): told.append(device); return parts()\n"
        "def asks_by_default(*, device='cuda', seed=0): told.append(device); return parts()\n"
        "def anything(**options): told.append(options); return parts()\n"
    )
    for name, told in (("plain", []), ("asks", ["cpu"]), ("asks_by_default", ["cpu"]), ("anything", [{}])):
        target = Target(f"asks_or_not:{name}")
        training = target.make("cpu")
        module: Any = sys.modules["asks_or_not"]
        assert module.told == told, name
        assert target.takes_device == (name in ("asks", "asks_by_default"))
        assert isinstance(training.optimizer[0], torch.optim.SGD)
        module.told.clear()
