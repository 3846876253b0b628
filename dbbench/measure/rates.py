"""What a device could do at most, and how much of it a step used: MFU and HFU.

The rates are those of dense matrix products in the vendors' data sheets, at the boost clock. Since 2020 these print the
rate with 2:4 sparsity, twice the dense one; where that is all they print, it is halved here. Half precision is the rate
with fp32 accumulation, which is what training uses. A device that is not in the table has no rate, and so no MFU: the
next best guess would be a wrong denominator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16")
TERA = 1e12

#: Phases of the work that a model asks for; everything else a step computes is there to save memory or to update.
_MODEL_PHASES = ("forward", "backward")


@dataclass(frozen=True)
class Device:
    """One model of device. ``name`` is a regular expression for the whole of ``torch.cuda.get_device_name()``.

    Rates are in FLOP/s, None where the hardware has no such unit. ``fp32`` leaves 10-bit products out: on NVIDIA it is
    the rate without tensor cores, on AMD that of the matrix cores, which keep all of fp32.
    """

    name: str
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float
    source: str


def _device(name: str, fp32: float, tf32: float | None, bf16: float | None, fp16: float, source: str) -> Device:
    """Take the rates in TFLOP/s, as data sheets print them."""
    tensor = [None if rate is None else rate * TERA for rate in (tf32, bf16)]
    return Device(name, fp32 * TERA, tensor[0], tensor[1], fp16 * TERA, source)


_V100 = "NVIDIA V100 data sheet (January 2020)"
_A100 = "NVIDIA A100 80GB data sheet (June 2021)"
_H100 = "NVIDIA H100 data sheet, sparse rates halved"
_GA102 = "NVIDIA Ampere GA102 architecture white paper v2.0"
_ADA = "NVIDIA Ada GPU architecture white paper v2.0"

#: No pattern matches another one's device. Drivers before 470 leave the maker's name out.
DEVICES: tuple[Device, ...] = (
    _device(r"(NVIDIA )?Tesla V100-SXM2-(16|32)GB", 15.7, None, None, 125, _V100),
    _device(r"(NVIDIA )?Tesla V100-PCIE-(16|32)GB", 14, None, None, 112, _V100),
    _device(r"(NVIDIA )?Tesla V100S-PCIE-32GB", 16.4, None, None, 130, _V100),
    _device(r"(NVIDIA )?Tesla T4", 8.1, None, None, 65, "NVIDIA T4 data sheet (2019)"),
    _device(r"(NVIDIA )?A100-(SXM4|PCIE|PG509)-(40|80)GB", 19.5, 156, 312, 312, _A100),
    _device(r"(NVIDIA )?A100 80GB PCIe", 19.5, 156, 312, 312, _A100),
    _device(r"(NVIDIA )?A30", 10.3, 82, 165, 165, "NVIDIA A30 data sheet (March 2022)"),
    _device(r"(NVIDIA )?A10", 31.2, 62.5, 125, 125, "NVIDIA A10 data sheet (2021)"),
    _device(r"(NVIDIA )?A40", 37.4, 74.8, 149.7, 149.7, _GA102),
    _device(r"(NVIDIA )?RTX A6000", 38.7, 77.4, 154.8, 154.8, _GA102),
    _device(r"(NVIDIA )?GeForce RTX 3090", 35.6, 35.6, 71, 71, _GA102),
    _device(r"NVIDIA GeForce RTX 4090", 82.6, 82.6, 165.2, 165.2, _ADA),
    _device(r"NVIDIA L4", 30.3, 120 / 2, 242 / 2, 242 / 2, "NVIDIA L4 data sheet (2023), sparse rates halved"),
    _device(r"NVIDIA L40", 90.5, 90.5, 181.05, 181.05, "NVIDIA L40 data sheet"),
    _device(r"NVIDIA L40S", 91.6, 183, 362.05, 362.05, "NVIDIA L40S data sheet"),
    _device(r"NVIDIA H100 (80GB HBM3|SXM5 80GB)", 67, 989 / 2, 1979 / 2, 1979 / 2, _H100),
    _device(r"NVIDIA H100 PCIe", 51, 756 / 2, 1513 / 2, 1513 / 2, _H100),
    _device(r"NVIDIA H100 NVL", 60, 835 / 2, 1671 / 2, 1671 / 2, _H100),
    _device(r"NVIDIA GH200 (480GB|120GB|144G HBM3e)", 67, 494, 990, 990, "NVIDIA GH200 data sheet"),
    _device(r"NVIDIA H200", 67, 989 / 2, 1979 / 2, 1979 / 2, "NVIDIA H200 data sheet, sparse rates halved"),
    _device(r"NVIDIA H200 NVL", 60, 835 / 2, 1671 / 2, 1671 / 2, "NVIDIA H200 data sheet, sparse rates halved"),
    _device(
        r"NVIDIA B200", 80, 2200 / 2, 4500 / 2, 4500 / 2,
        "NVIDIA Blackwell architecture technical brief, HGX B200 at 1,000 W, sparse rates halved",
    ),
    _device(
        r"AMD Instinct MI250X", 95.7 / 2, None, 383 / 2, 383 / 2,
        "AMD Instinct MI250X data sheet, per die: torch sees each of its two as a device",
    ),
    _device(r"AMD Instinct MI300X", 163.4, 653.7, 1307.4, 1307.4, "AMD Instinct MI300X data sheet (2023)"),
)  # fmt: skip


def peak_flops_per_second(device_name: str, precision: Precision) -> tuple[float | None, str]:
    """Return (FLOP/s, source) of dense products in ``precision`` on ``torch.cuda.get_device_name()``'s device.

    Where there is none it is (None, reason): not in the table, no such unit, or a slice of a device (MIG).
    """
    name = device_name.strip()
    if " MIG " in name:
        return None, f"'{name}' is a slice of a device, whose share of the peak is not in the table"
    for device in DEVICES:
        if re.fullmatch(device.name, name):
            rate: float | None = getattr(device, precision)
            if rate is None:
                return None, f"'{name}' has no unit for {precision} products"
            return rate, f"{device.source}: {rate / TERA:g} TFLOP/s dense {precision}"
    return None, f"'{name}' is not in the table of peak rates (--peak-flops gives one)"


def mfu(flops_by_phase: Mapping[str, int], seconds: float, peak_flops_per_second: float) -> float:
    """Return the model FLOPs utilization of a step: FLOPs of forward and backward alone / (seconds × peak).

    What is recomputed to save memory does not count, so that a step which computes less twice is not called better
    (Chowdhery et al. 2022, "PaLM", section 4.1 and appendix B). The FLOPs are those that the ledger counted; a fused
    attention backward computes its scores again inside the kernel, and torch's formula counts that as backward.
    """
    return sum(flops_by_phase.get(phase, 0) for phase in _MODEL_PHASES) / (seconds * peak_flops_per_second)


def hfu(flops_by_phase: Mapping[str, int], seconds: float, peak_flops_per_second: float) -> float:
    """Return the hardware FLOPs utilization of a step: every FLOP it ran, recomputation included / (seconds × peak)."""
    return sum(flops_by_phase.values()) / (seconds * peak_flops_per_second)
