"""``dbbench profile`` on a CUDA device. Needs a GPU (marker ``gpu``)."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from dbbench.profile.command import Order, profile_step
from dbbench.profile.folder import save_profile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MODULE = """
import torch
from torch import nn
from torch.nn import functional as F

def make_step():
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(8, 128, 256)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"model": model, "optimizer": optimizer, "step": step, "inputs": x}

def placed(device):
    model = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x, y = torch.randn(64, 512, device=device), torch.randint(10, (64,), device=device)

    def step():
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    path = tmp_path / "on_cuda.py"
    path.write_text(MODULE)
    return str(path)


@pytest.mark.parametrize("name", ["make_step", "placed"])
def test_the_devices_figures_stand_around_the_ledgers(name: str, module: str) -> None:
    """The step would run elsewhere, or the way from the ledger's peak to the process's would not add up."""
    profile = profile_step(f"{module}:{name}", Order(device="cuda", steps=2)).profile
    assert profile.source == "cuda" and profile.device == torch.cuda.get_device_name()
    assert profile.split["parameters"] > 0
    figures, workspace = profile.device_figures, profile.kernel_workspace_bytes
    assert figures is not None and workspace is not None
    assert 0 <= workspace <= 64 << 20
    assert figures.device_peak_bytes <= figures.allocated_bytes <= figures.reserved_bytes
    assert len(profile.seconds_per_step) == Order().timed_steps


def test_a_cuda_step_costs_what_a_fake_one_foretells(module: str) -> None:
    """A plan made on fake tensors would not hold on the device: parameters, optimizer and FLOPs do not depend on it."""
    real = profile_step(f"{module}:placed", Order(device="cuda")).profile
    fake = profile_step(f"{module}:placed", Order(device="fake")).profile
    assert fake.flops_per_step == real.flops_per_step
    for role in ("parameters", "gradients", "activations"):
        assert fake.own_peaks[role] == real.own_peaks[role], role


def test_the_rate_is_that_of_the_precision_which_ran(module: str) -> None:
    """An autocast step would be held to the rate of fp32, or an unknown card to another's."""
    profile = profile_step(f"{module}:make_step", Order(device="cuda")).profile
    if profile.peak_flops_per_second is None:
        assert any(note.startswith("no MFU: ") for note in profile.notes)
    else:
        assert "dense bf16" in (profile.peak_flops_source or "")


def test_the_snapshot_and_the_waterfall_are_left(module: str, tmp_path: Path) -> None:
    """memory_viz would have nothing to open."""
    file, folder = tmp_path / "step.pickle", tmp_path / "out"
    found = profile_step(f"{module}:placed", Order(device="cuda", snapshot=file))
    profile, frame = found.profile, found.frame
    assert pickle.loads(file.read_bytes())["segments"]
    save_profile(folder, profile, frame)
    known = profile.device_figures is not None and profile.device_figures.nvml_process_peak_bytes is not None
    assert (folder / "waterfall.png").exists() == known
