"""Runs pytest inside a test: the tests that it is given, with the plugin, in this process."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch
from inner_run import MODEL, Ran, Run

collect_ignore = ["example"]  # a project of its own, with tests that fail


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Gives ``run(source, *options)``, which runs the tests of ``source`` after `MODEL` and returns what came of it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # what is asked of the tests around it
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def ran(source: str, *options: str) -> Ran:
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
        path = tmp_path / "test_inner.py"
        path.write_text(MODEL + textwrap.dedent(source), encoding="utf-8")
        result = Ran()
        given = ["-p", "dbbench.pytest_plugin.plugin", "-p", "no:cacheprovider", "--import-mode=importlib", "-s"]
        result.status = int(pytest.main([*given, *options, str(path)], plugins=[result]))
        sys.modules.pop(path.stem, None)  # the next run's has the same name
        result.output = "".join(capsys.readouterr())
        return result

    return ran
