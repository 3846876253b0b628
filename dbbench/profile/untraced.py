"""The passes that no ledger disturbs: the device allocator's own peak, and the time of a step with its peak rate."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.measure import device as devices
from dbbench.measure import private
from dbbench.measure.flops import FlopCount, Formula
from dbbench.measure.rates import PRECISIONS, peak_flops_per_second
from dbbench.profile.target import build, default_device, in_words
from dbbench.results.profile import DeviceFigures

_NO_BLOCKS = "the CPU's allocator has no such figure"
_FIGURES = ("device_peak_bytes", "allocated_bytes", "reserved_bytes", "nvml_process_peak_bytes")
_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass
class Untraced:
    """What the passes found. ``flops`` is by precision, for the choice of a rate; ``failure`` is one line, or None."""

    figures: DeviceFigures = field(default_factory=DeviceFigures)
    seconds_per_step: list[float] = field(default_factory=list)
    flops: Counter[str] = field(default_factory=Counter)
    failure: str | None = None


def run_untraced(
    make: Callable[..., Any],
    device: str,
    target: str,
    *,
    steps: int,
    warmup: int,
    timed_steps: int,
    snapshot: Path | None = None,
) -> Untraced:
    """Build anew, take the steps of the traced pass under the device's own watch, then time further ones.

    Nothing raises: what the traced pass could do and this one cannot stands in ``failure``.
    """
    found = Untraced()
    history = private.memory_history(None if snapshot is None else str(snapshot))
    seen = devices.watch(device)
    try:
        with default_device(make, device):
            with seen, history:
                built = build(make, device, target)
                for _ in range(warmup):
                    built.step()
                for _ in range(steps):
                    with seen.step():
                        built.step()
            found.seconds_per_step = [_seconds(built.step, device) for _ in range(timed_steps)]
            if device == "cuda":
                found.flops = flops_by_precision(built.step)
    except Exception as error:
        words = str(error) if isinstance(error, BadInput) else in_words(error)
        found.failure = f"the untraced pass failed: {words}"
    found.figures = _device_figures(seen.peaks, device, found.failure)
    return found


def _device_figures(peaks: devices.DevicePeaks, device: str, failure: str | None) -> DeviceFigures:
    figures = {name: getattr(peaks, name) for name in _FIGURES}
    reason = failure or ("NVML does not say" if device == "cuda" else _NO_BLOCKS)
    reasons = {name: reason for name, value in figures.items() if value is None}
    return DeviceFigures(**figures, workspace_op=peaks.peak_op, reasons=reasons)


def _seconds(step: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


class _ByPrecision(private.TorchDispatchMode):
    """Sums the FLOPs of the ops below it by the precision that their units compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self._count = FlopCount()
        self._formulas: dict[Any, Formula | None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func not in self._formulas:
            self._formulas[func] = self._count.formula(func)
        formula = self._formulas[func]
        flops = formula(args, kwargs or {}, out) if formula is not None else 0
        if flops:
            first = next(arg for arg in args if isinstance(arg, Tensor))
            self.flops[_precision(func.__name__, first.dtype)] += flops
        return out


def _precision(op: str, dtype: torch.dtype) -> str:
    """Return the precision of an op's products; torch lets convolutions and matrix products of fp32 use tf32 apart."""
    if dtype is torch.float32:
        switch = torch.backends.cudnn.conv if "convolution" in op else torch.backends.cuda.matmul  # type: ignore[attr-defined]
        return "tf32" if switch.fp32_precision == "tf32" else "fp32"
    return _DTYPES.get(dtype, str(dtype).removeprefix("torch."))


def flops_by_precision(step: Callable[[], Any]) -> Counter[str]:
    """Take one step and return its FLOPs by precision: one of `PRECISIONS`, or another dtype's name."""
    with _ByPrecision() as mode:
        step()
    return mode.flops


def rate_of(device_name: str, flops: Mapping[str, int]) -> tuple[float | None, str]:
    """Return (FLOP/s, source) of the precision that most of ``flops`` are in, or (None, reason)."""
    if not flops:
        return None, "the step has no FLOPs"
    most = max(flops, key=lambda precision: flops[precision])
    if most not in PRECISIONS:
        return None, f"most FLOPs are in {most}, for which no rate is known"
    rate, source = peak_flops_per_second(device_name, most)
    share = flops[most] / sum(flops.values())
    if rate is not None and share < 1:
        source += f"; {share:.1%} of the FLOPs are {most}"
    return rate, source
