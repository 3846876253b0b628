"""In which precision a step's products are computed: what decides the rate that it can reach at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dbbench.measure import private
from dbbench.measure.flops import FlopCount, Formula
from dbbench.measure.rates import PRECISIONS, peak_flops_per_second

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class _ByPrecision(private.TorchDispatchMode):
    """Sums FLOPs by what the ops that reach the dispatcher compute in; autocast has cast their arguments by then."""

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
    if dtype is torch.float32:  # torch lets cuDNN's convolutions use tf32 by default, and cuBLAS's products not
        switch: Any = torch.backends.cudnn.conv if "convolution" in op else torch.backends.cuda.matmul  # type: ignore[attr-defined]
        return "tf32" if switch.fp32_precision == "tf32" else "fp32"
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


def flops_by_precision(step: Callable[[], Any]) -> Counter[str]:
    """Take one step and return its FLOPs by precision: one of `PRECISIONS`, or another dtype's name."""
    with _ByPrecision() as mode:
        step()
    return mode.flops


def rate_of(device_name: str, flops: Mapping[str, int]) -> tuple[float | None, str]:
    """Return (FLOP/s, source) of the precision that most of ``flops`` are in on a device, or (None, reason)."""
    if not flops:
        return None, "the step has no FLOPs"
    most = max(flops, key=lambda precision: flops[precision])
    if most not in PRECISIONS:
        return None, f"most FLOPs are in {most}, for which the table has no rates"
    rate, source = peak_flops_per_second(device_name, most)
    share = flops[most] / sum(flops.values())
    if rate is not None and share < 1:
        source += f"; {share:.1%} of the FLOPs are {most}"
    return rate, source
