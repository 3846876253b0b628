"""Peak rates against the arithmetic of the hardware, look-up by the names that drivers print, MFU and HFU by hand."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dbbench.measure.rates import DEVICES, PRECISIONS, hfu, mfu, peak_flops_per_second

#: name: (units, GHz of the half-precision figure, its FLOPs a unit and clock, GHz of the fp32 figure, its FLOPs)
HARDWARE = {
    "Tesla V100-SXM2-32GB": (80, 1.53, 1024, 1.53, 128),
    "Tesla V100-PCIE-16GB": (80, 1.38, 1024, 1.38, 128),
    "Tesla T4": (40, 1.59, 1024, 1.59, 128),
    "NVIDIA A100-SXM4-80GB": (108, 1.41, 2048, 1.41, 128),
    "NVIDIA A100 80GB PCIe": (108, 1.41, 2048, 1.41, 128),
    "NVIDIA A30": (56, 1.44, 2048, 1.44, 128),
    "NVIDIA A10": (72, 1.695, 1024, 1.695, 256),
    "NVIDIA A40": (84, 1.74, 1024, 1.74, 256),
    "NVIDIA RTX A6000": (84, 1.8, 1024, 1.8, 256),
    "NVIDIA GeForce RTX 3090": (82, 1.695, 512, 1.695, 256),
    "NVIDIA GeForce RTX 4090": (128, 2.52, 512, 2.52, 256),
    "NVIDIA L4": (58, 2.04, 1024, 2.04, 256),
    "NVIDIA L40": (142, 2.49, 512, 2.49, 256),
    "NVIDIA L40S": (142, 2.52, 1024, 2.52, 256),
    "NVIDIA H100 80GB HBM3": (132, 1.83, 4096, 1.98, 256),
    "NVIDIA H100 PCIe": (114, 1.62, 4096, 1.755, 256),
    "NVIDIA H200": (132, 1.83, 4096, 1.98, 256),
    "NVIDIA GH200 480GB": (132, 1.83, 4096, 1.98, 256),
    "AMD Instinct MI250X": (110, 1.7, 1024, 1.7, 256),
    "AMD Instinct MI300X": (304, 2.1, 2048, 2.1, 256),
}


@pytest.mark.parametrize("name", HARDWARE)
def test_rates_are_units_times_clock_times_width(name: str) -> None:
    """A rate is mistyped, the sparse one, or another board's: every MFU on that device would be wrong."""
    units, half_ghz, half_flops, fp32_ghz, fp32_flops = HARDWARE[name]
    half, source = peak_flops_per_second(name, "fp16")
    fp32, _ = peak_flops_per_second(name, "fp32")
    assert half == pytest.approx(units * half_ghz * 1e9 * half_flops, rel=0.015), source
    assert fp32 == pytest.approx(units * fp32_ghz * 1e9 * fp32_flops, rel=0.015), source


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_the_precisions_of_a_device_are_in_order(device: object) -> None:
    """A column slipped: bf16 is as fast as fp16, tf32 half of that, and fp32 no faster than tf32."""
    fp32, tf32, bf16, fp16 = (getattr(device, precision) for precision in PRECISIONS)
    assert bf16 in (None, fp16)
    assert tf32 is None or tf32 == pytest.approx(fp16 / 2, rel=0.03)
    assert fp32 <= (tf32 or fp16) * 1.001


def test_no_name_is_that_of_two_devices() -> None:
    """The order of the table would decide which rate a device gets."""
    names = [*HARDWARE, "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA B200", "Tesla V100S-PCIE-32GB"]
    for name in names:
        assert sum(bool(re.fullmatch(device.name, name)) for device in DEVICES) == 1, name


def test_sxm_and_pcie_are_told_apart() -> None:
    """An H100 on a PCIe card would be held to a rate that is a third too high."""
    rates = [peak_flops_per_second(f"NVIDIA H100 {board}", "bf16")[0] for board in ("80GB HBM3", "NVL", "PCIe")]
    assert rates == [989.5e12, 835.5e12, 756.5e12]
    assert peak_flops_per_second("Tesla V100-SXM2-16GB", "fp16")[0] == 125e12
    assert peak_flops_per_second("Tesla V100-PCIE-16GB", "fp16")[0] == 112e12
    assert peak_flops_per_second("A100-SXM4-40GB", "tf32")[0] == 156e12  # as drivers before 470 name it


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100",  # a board of its own with other memory and clocks
        "NVIDIA A10G",  # half of an A10's tensor rate
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "AMD Instinct MI250X/MI250",  # what ROCm calls either
        "NVIDIA H800",
        "cpu",
    ],
)
def test_a_near_miss_has_no_rate_but_a_reason(name: str) -> None:
    """A device would be measured against a similarly named one."""
    rate, reason = peak_flops_per_second(name, "bf16")
    assert rate is None
    assert name in reason and "--peak-flops" in reason


def test_a_slice_of_a_device_has_no_rate() -> None:
    """A seventh of an A100 would be called seven times as idle as it is."""
    rate, reason = peak_flops_per_second("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16")
    assert rate is None and "slice" in reason


def test_a_precision_without_a_unit_has_no_rate() -> None:
    """A V100's bf16, which it emulates, would be held to the rate of fp16."""
    for precision in ("bf16", "tf32"):
        rate, reason = peak_flops_per_second("Tesla V100-SXM2-16GB", precision)
        assert rate is None and precision in reason


def test_the_source_names_the_denominator() -> None:
    """A utilization would be printed without what it is a fraction of."""
    _, source = peak_flops_per_second("NVIDIA A100-SXM4-80GB", "bf16")
    assert "A100" in source and "312 TFLOP/s dense bf16" in source


def test_recomputation_counts_for_the_hardware_alone() -> None:
    """Checkpointing would raise the MFU, against its definition in the PaLM paper, or HFU would miss work done."""
    flops = {"forward": 100, "backward": 200, "recompute": 100, "optimizer": 20}
    assert mfu(flops, 2.0, 300.0) == pytest.approx(300 / 600)
    assert hfu(flops, 2.0, 300.0) == pytest.approx(420 / 600)
    plain = {"forward": 100, "backward": 200}
    assert mfu(plain, 2.0, 300.0) == hfu(plain, 2.0, 300.0) == 0.5


def test_the_table_needs_no_torch() -> None:
    """Printing a stored profile would import torch for a table of constants."""
    code = "import sys, dbbench.measure.rates; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
