"""Peak rates by device name, and the shares of them that a step uses."""

from __future__ import annotations

import re

import pytest

from dbbench.measure.rates import DEVICES, PRECISIONS, TERA, hfu, mfu, peak_flops_per_second

#: Names as drivers print them, and dense bf16 TFLOP/s as the makers publish them.
KNOWN = {
    "NVIDIA H100 80GB HBM3": 989.5,
    "NVIDIA H100 PCIe": 756.5,
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA H200": 989.5,
    "NVIDIA L4": 121,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_driver_s_name_finds_its_device(name: str) -> None:
    """MFU would be a share of another card's peak, or of the sparse rate."""
    rate, source = peak_flops_per_second(name, "bf16")
    assert rate == pytest.approx(KNOWN[name] * TERA)
    assert "dense bf16" in source


def test_no_name_fits_two_devices() -> None:
    """The order of the table would decide."""
    for name in KNOWN:
        assert sum(re.fullmatch(device.name, name) is not None for device in DEVICES) == 1


@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", "slice of a device"),
        ("Tesla V100-SXM2-32GB", "bf16", "no unit for bf16"),
        ("Some Card 9000", "fp32", "not in the table"),
    ],
)
def test_an_unknown_rate_has_a_reason(name: str, precision: str, reason: str) -> None:
    """A guess would be a wrong denominator."""
    rate, why = peak_flops_per_second(name, precision)  # type: ignore[arg-type]
    assert rate is None
    assert reason in why


def test_rates_rise_as_precision_falls() -> None:
    """Two columns of the table would have changed places."""
    for device in DEVICES:
        known = [rate for precision in PRECISIONS[:3] if (rate := getattr(device, precision)) is not None]
        assert known == sorted(known), device.name


def test_recompute_counts_for_the_hardware_and_not_for_the_model() -> None:
    """Checkpointing would look like a better use of the device."""
    flops = {"forward": 100, "recompute": 50, "backward": 200}
    assert mfu(flops, seconds=2.0, peak_flops_per_second=1000.0) == pytest.approx(0.15)
    assert hfu(flops, seconds=2.0, peak_flops_per_second=1000.0) == pytest.approx(0.175)
