"""The bound on a step's time against arithmetic by hand, the table of devices, and what fits."""

from __future__ import annotations

import pytest
from estimates import GIB, estimate, figures

from dbbench.errors import BadInput
from dbbench.estimate.bound import fits, lower_bound
from dbbench.estimate.devices import MODELS, DeviceModel, device_model, model_of_device
from dbbench.estimate.suite import memory_budget
from dbbench.measure.rates import peak_flops_per_second

#: 67 and 989.5 TFLOP/s (by its name), 1 TB/s, 1 GiB of cache, 10 GB/s each way.
TOY = DeviceModel("toy", "NVIDIA H100 80GB HBM3", 80 * GIB, "", 1e12, GIB, 1e10, "")


@pytest.mark.parametrize(
    ("precision", "masked", "seconds"),
    [
        ("fp32", 0, 1e12 / 67e12),  # without TF32
        ("bf16", 0, 1e12 / 989.5e12),
        ("autocast_bf16", 0, 1e12 / 989.5e12),
        ("fp32", 10**11, 9e11 / 67e12),  # a causal kernel may leave those out
    ],
)
def test_arithmetic_is_flops_over_the_rate_of_the_cells_precision(precision: str, masked: int, seconds: float) -> None:
    """A bound at the wrong rate is no bound: TF32 is eight times as fast, bfloat16 fifteen times."""
    bound = lower_bound(estimate(precision=precision, masked=masked, updated_bytes=1), TOY)
    assert bound is not None
    assert (bound.binds, bound.seconds) == ("arithmetic", pytest.approx(seconds))


def test_the_optimizer_reads_four_numbers_a_parameter_and_writes_three_less_what_the_cache_keeps() -> None:
    """A small model's state stays in the cache, so that a bound by the memory's bandwidth would be above the truth."""
    bound = lower_bound(estimate(updated_bytes=GIB, flops_step=1), TOY)
    assert bound is not None
    assert bound.binds == "optimizer"
    assert bound.seconds == pytest.approx(((4 - 1) + (3 - 1)) * GIB / 1e12)
    within = lower_bound(estimate(updated_bytes=GIB // 4, flops_step=1), TOY)
    assert within is not None
    assert within.parts_seconds["optimizer"] == 0


def test_transfers_go_both_ways_at_once() -> None:
    """Half of what is moved goes out and half comes in, at the same time: all of it one after another is no bound."""
    bound = lower_bound(estimate(updated_bytes=1, flops_step=1, host_transfer_bytes_per_step=4 * 10**9), TOY)
    assert bound is not None
    assert (bound.binds, bound.seconds) == ("transfers", pytest.approx(0.2))


def test_a_device_without_the_precision_says_so_and_a_failed_cell_has_no_bound() -> None:
    """A V100 has no bfloat16 unit: its float32 rate would be invented for it."""
    bound = lower_bound(estimate(precision="bf16"), device_model("v100-32gb"))
    assert bound is not None
    assert "arithmetic" not in bound.parts_seconds
    assert "no unit for bf16" in str(bound.missing)
    assert lower_bound(estimate(flops_step=None), TOY) is None


def test_what_fits_only_by_giving_back_the_cache_is_told_apart() -> None:
    """A step that stalls on cudaFree at every peak would be called a fit like any other."""
    verdicts = [fits(figures(**change)) for change in ({}, {"retries": 2}, {"retries": 2, "out_of_memory": True})]
    assert verdicts == ["yes", "by giving back the cache", "no"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_a_device_that_the_rates_know_with_less_memory_than_its_name_says(name: str) -> None:
    """A slip in the table: torch never sees more than the nominal size, nor less than nine tenths in GB of it."""
    model, nominal = MODELS[name], int(name.rpartition("-")[2].removesuffix("gb"))
    assert name == model.name
    assert peak_flops_per_second(model.cuda_name, "fp32")[0] is not None
    assert 0.9 * nominal * 1e9 < model.memory_bytes < nominal * GIB
    assert 3e11 <= model.bandwidth_bytes_per_second <= 1e13
    assert 1e10 < model.link_bytes_per_second < 2e11
    assert 2**20 < model.cache_bytes < 2**28
    assert model_of_device(model.cuda_name) is model
    assert model.source and model.memory_source


def test_links_are_those_of_the_specifications() -> None:
    """The rounded figures everybody knows, one direction of 16 lanes: 15.75, 31.5, 63 and 121 GB/s."""
    links = sorted({model.link_bytes_per_second / 1e9 for model in MODELS.values()})
    assert links == pytest.approx([15.75, 31.51, 63.02, 121.0], abs=0.01)


def test_an_unknown_model_gets_the_nearest_name() -> None:
    """The user would have to find the table."""
    with pytest.raises(BadInput, match=r"--device-model: unknown device model 'h100' \(did you mean 'h100-80gb'\?\)"):
        device_model("h100")


def test_a_memory_comes_before_the_devices_own_and_must_exceed_the_headroom() -> None:
    """A budget would be the device's although another was asked for, or be negative."""
    budget = memory_budget(device_model("l4-24gb"), 8 * GIB, GIB)
    assert budget is not None
    assert (budget.memory_bytes, budget.headroom_bytes, budget.device_model) == (8 * GIB, GIB, "l4-24gb")
    assert memory_budget(None, None, GIB) is None
    with pytest.raises(BadInput, match=r"--headroom"):
        memory_budget(None, GIB, GIB)
