"""Limits on memory in tests that train on a CUDA device. Needs a GPU (marker ``gpu``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TESTS = """
import pytest, torch
from torch import nn

IN, HIDDEN, BATCH, FLOAT = 512, 2048, 256, 4
PARAMETERS = (IN * HIDDEN + HIDDEN + HIDDEN + 1) * FLOAT
ACTIVATIONS = BATCH * (IN + HIDDEN) * FLOAT  # what both products keep: the input is made in the test

def made():
    return nn.Sequential(nn.Linear(IN, HIDDEN), nn.Linear(HIDDEN, 1)).cuda()

@pytest.fixture
def model():
    return made()

@pytest.mark.memory_limit(parameters=f"== {PARAMETERS}", gradients=PARAMETERS, activations=ACTIVATIONS)
def test_fixture(model):
    model(torch.zeros(BATCH, IN, device="cuda")).sum().backward()

@pytest.mark.memory_limit(activations=ACTIVATIONS - 1)
def test_fixture_fails(model):
    model(torch.zeros(BATCH, IN, device="cuda")).sum().backward()

@pytest.mark.memory_limit(peak="1 GiB")
def test_body_fails():
    made()(torch.zeros(BATCH, IN, device="cuda"))

@pytest.mark.memory_limit(peak="1 GiB", parameters=f"== {PARAMETERS}", device="cuda")
def test_body():
    made()(torch.zeros(BATCH, IN, device="cuda"))

def test_step(assert_peak, model):
    optimizer, x = torch.optim.AdamW(model.parameters(), fused=True), torch.zeros(BATCH, IN, device="cuda")

    def step():
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    found = assert_peak(step, optimizer=f">= {2 * PARAMETERS}", parameters=PARAMETERS)
    assert found.profile().source == "cuda"
"""


def test_bytes_on_the_device_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test on a GPU would be held against the bytes of the host, or none."""
    monkeypatch.chdir(tmp_path)  # a test is named by its path from here
    path = tmp_path / "test_on_cuda.py"
    path.write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ["-p", "no:dbbench", "-p", "dbbench.pytest_plugin.plugin", "-p", "no:cacheprovider", "-rA"]
    pytest.main([*options, "--import-mode=importlib", str(path)])
    sys.modules.pop(path.stem, None)
    output = capsys.readouterr().out
    for test in ("test_fixture", "test_body", "test_step"):
        assert f"PASSED test_on_cuda.py::{test}\n" in output, output
    for test in ("test_fixture_fails", "test_body_fails"):
        assert f"FAILED test_on_cuda.py::{test} - " in output, output
    assert 'write device="cuda"' in output
