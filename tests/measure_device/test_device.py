"""NVML's path against a fake module: energy and a process's memory on machines with a GPU, null with a reason without.

The CPU allocator's own peak is tested against sizes that were asked for by hand.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from dbbench.measure.device import CpuWatch, EnergyMeter, nvml_process_bytes, watch


class FakeNvml(ModuleType):
    """Stands for ``pynvml``: a device whose energy counter and processes the test sets."""

    class NVMLError(Exception):
        """NVML's own class of error."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = 5_000
        self.processes: list[Any] = []
        self.initialised = False
        self.handles: list[int] = []

    def nvmlInit(self) -> None:
        self.initialised = True

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        assert self.initialised, "NVML answers nothing before nvmlInit"
        self.handles.append(index)
        return f"device {index}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle.startswith("device")
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        assert handle.startswith("device")
        return self.processes


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Put a fake ``pynvml`` in the place of the real one, on a machine without CUDA."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return fake


def test_energy_is_the_counters_difference_in_joules(nvml: FakeNvml) -> None:
    """NVML counts millijoules since the driver was loaded: a report would be off by a thousand, or by history."""
    meter = EnergyMeter(index=2)
    assert meter.reason is None
    assert nvml.handles == [2]
    meter.start()
    nvml.millijoules += 1_250
    assert meter.joules() == pytest.approx(1.25)
    nvml.millijoules += 250
    assert meter.joules() == pytest.approx(1.5)
    meter.start()
    assert meter.joules() == 0.0


def test_a_card_without_the_counter_gives_no_figure_and_a_reason(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energy would be reported as zero joules."""

    def unsupported(handle: str) -> int:
        raise FakeNvml.NVMLError("Not Supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    meter = EnergyMeter()
    meter.start()
    assert meter.joules() is None
    assert meter.reason == "NVML gives no energy counter here (NVMLError)"


def test_without_the_library_there_is_no_figure_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's library could not run anything."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = EnergyMeter()
    assert meter.joules() is None
    assert meter.reason is not None and "ModuleNotFoundError" in meter.reason
    assert nvml_process_bytes() is None


def test_memory_is_this_processs_own(nvml: FakeNvml) -> None:
    """A neighbour's memory would be booked on this cell."""
    nvml.processes = [
        SimpleNamespace(pid=1, usedGpuMemory=7 << 30),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 << 20),
    ]
    assert nvml_process_bytes(0) == 3 << 20
    nvml.processes = nvml.processes[:1]  # a container that NVML sees under another number
    assert nvml_process_bytes(0) is None


def test_with_cuda_the_card_is_found_by_its_uuid(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES renumbers cards for CUDA and not for NVML: another card would be read."""
    asked: list[str] = []

    def by_uuid(uuid: str) -> str:
        asked.append(uuid)
        return "device by uuid"

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByUUID", by_uuid, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"0f-{index}"))
    nvml.processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=11)]
    assert nvml_process_bytes(1) == 11
    assert asked == ["GPU-0f-1"]
    assert not nvml.handles


def test_the_cpu_watch_reads_the_allocators_peak_of_marked_steps_alone() -> None:
    """The truth that ledgers are held against would itself be wrong."""
    with CpuWatch() as seen:
        held = torch.empty(1_000, dtype=torch.float32)  # 4,000 bytes, alive when the steps begin
        large = torch.empty(1 << 20)  # outside any step
        del large
        with seen.step():
            a = torch.empty(500)
            b = torch.empty(250)
            del a
            c = torch.empty(100)
        with seen.step():
            d = torch.empty(10)
    assert held.numel() + b.numel() + c.numel() + d.numel() == 1_360
    assert seen.peaks.device_peak_bytes == 4_000 + 2_000 + 1_000
    assert seen.peaks.peak_op == "aten.empty"
    assert seen.peaks.allocated_bytes is seen.peaks.reserved_bytes is seen.peaks.nvml_process_peak_bytes is None


def test_the_op_at_the_peak_is_named() -> None:
    """A kernel's scratch would be bytes of nobody: a convolution's backward rearranges its operands."""
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    weight = torch.randn(8, 8, 3, 3, requires_grad=True)
    with CpuWatch() as seen, seen.step():
        torch.nn.functional.conv2d(x, weight, padding=1).sum().backward()
    assert seen.peaks.peak_op == "aten.convolution_backward"


def test_a_failing_step_leaves_no_figure() -> None:
    """Half a step's peak would be reported as the step's."""
    seen = CpuWatch()
    with pytest.raises(ValueError, match="broke"), seen, seen.step():
        raise ValueError("broke")
    assert seen.peaks.device_peak_bytes is None


def test_each_device_has_its_own_watch() -> None:
    """CPU events would be read on CUDA."""
    assert isinstance(watch("cpu"), CpuWatch)
    assert type(watch("cuda")).__name__ == "CudaWatch"
