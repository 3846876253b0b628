"""The device allocator's own account of untraced steps: the independent truth beside every ledger.

On CPU it is the allocator's events, through the profiler. On CUDA it is the caching allocator's statistics: the bytes
asked for (to compare with a ledger), allocated (rounded to blocks) and reserved, and what NVML says the process holds.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch

from dbbench.measure import private

_STEP = "dbbench.step"


@dataclass
class DevicePeaks:
    """Peaks over the marked steps, in bytes; None where the device has no such figure.

    ``peak_op`` is the op that was running when the device's peak was reached: what a kernel's workspace is booked on.
    ``cublas_workspace_bytes`` is what cuBLAS kept of the allocator from its first product on, and is in all the peaks.
    """

    device_peak_bytes: int | None = None
    peak_op: str | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    nvml_process_peak_bytes: int | None = None
    cublas_workspace_bytes: int | None = None


class CpuWatch:
    """Listens to the CPU allocator from ``__enter__`` on; open it before anything that should count is built."""

    def __init__(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._profile = torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True)
        self.peaks = DevicePeaks()

    def __enter__(self) -> Self:
        self._profile.__enter__()
        return self

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark a step whose peak counts."""
        with torch.profiler.record_function(_STEP):
            yield

    def __exit__(self, *details: Any) -> None:
        self._profile.__exit__(*details)
        if details[0] is None:
            self.peaks.device_peak_bytes, at = self._peak()
            self.peaks.peak_op = private.op_at(self._profile, at)

    def _peak(self) -> tuple[int, int]:
        """Return the peak, and its time in ns."""
        steps = iter(private.ranges(self._profile, _STEP))
        start, end = next(steps)
        live = peak = at = 0
        for time, size in private.allocations(self._profile):
            while time > end:
                start, end = next(steps, (time + 1, time + 1))
            # what is live when a step begins counts as well
            if start <= time <= end:
                peak = max(peak, live)
            live += size
            if start <= time <= end and live > peak:
                peak, at = live, time
        return peak, at


class CudaWatch:
    """Reads the caching allocator's peaks, reset before each marked step."""

    def __init__(self) -> None:
        self.peaks = DevicePeaks()

    def __enter__(self) -> Self:
        gc.collect()
        _cublas_workspace_bytes()  # an earlier pass's would be neither in the peaks nor out of them
        torch.cuda.empty_cache()
        self._before = torch.cuda.memory_stats()
        return self

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark a step whose peaks count."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.synchronize()
        stats, peaks = torch.cuda.memory_stats(), self.peaks
        # what other cells of this process left is not this one's
        requested = stats["requested_bytes.all.peak"] - self._before.get("requested_bytes.all.current", 0)
        peaks.device_peak_bytes = max(peaks.device_peak_bytes or 0, requested)
        peaks.allocated_bytes = max(peaks.allocated_bytes or 0, stats["allocated_bytes.all.peak"])
        peaks.reserved_bytes = max(peaks.reserved_bytes or 0, stats["reserved_bytes.all.peak"])
        held = nvml_process_bytes(torch.cuda.current_device())
        if held is not None:
            peaks.nvml_process_peak_bytes = max(peaks.nvml_process_peak_bytes or 0, held)

    def __exit__(self, *details: Any) -> None:
        if details[0] is None:
            self.peaks.cublas_workspace_bytes = _cublas_workspace_bytes()


def _cublas_workspace_bytes() -> int:
    """Give cuBLAS's workspaces back to the caching allocator; return how many bytes that were."""
    torch.cuda.synchronize()
    held = torch.cuda.memory_stats().get("requested_bytes.all.current", 0)
    private.clear_cublas_workspaces()
    return held - torch.cuda.memory_stats().get("requested_bytes.all.current", 0)


def watch(device_type: str) -> CpuWatch | CudaWatch:
    """Return the watch for ``cpu`` or ``cuda``."""
    return CudaWatch() if device_type == "cuda" else CpuWatch()


def _nvml_handle(index: int) -> tuple[Any, Any]:
    """Return (pynvml, handle) of the CUDA device ``index``; raises whatever NVML does where there is none."""
    import pynvml

    pynvml.nvmlInit()
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None) if torch.cuda.is_available() else None
    if uuid is not None:
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)


def nvml_process_bytes(index: int = 0) -> int | None:
    """Return the bytes of device memory that NVML books on this process (context included), None if unknown."""
    try:
        pynvml, handle = _nvml_handle(index)
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except Exception:  # no library, no driver, no permission: NVML raises a class of its own for each
        return None
    held = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
    return held[0] if held else None


class EnergyMeter:
    """Energy of the whole device between `start` and `joules`, by NVML's own counter (Volta and later).

    ``reason`` says why there is none.
    """

    def __init__(self, index: int = 0) -> None:
        self.reason: str | None = None
        self._start = 0
        try:
            self._nvml, self._handle = _nvml_handle(index)
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except Exception as error:
            self.reason = f"NVML gives no energy counter here ({type(error).__name__})"

    def start(self) -> None:
        """Begin a stretch."""
        if self.reason is None:
            self._start = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)

    def joules(self) -> float | None:
        """Return the joules since `start`, None where there is no counter (it counts millijoules)."""
        if self.reason is not None:
            return None
        return (self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._start) / 1000.0
