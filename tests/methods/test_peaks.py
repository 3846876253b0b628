"""Own peaks of the twelve-layer network, traced without training: what each method saves, in bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from method_steps import account_of, resolved, task_of, twelve_layers

from dbbench.harness.tracing import measure
from dbbench.measure.account import Account

FLOAT = 4
Cached = Callable[..., Account]


@pytest.fixture(scope="module")
def measured() -> Cached:
    """Measure a variant of the twelve-layer network once, whoever asks."""
    found: dict[str, Account] = {}

    def get(method: str, **options: object) -> Account:
        key = f"{method} {options}"
        if key not in found:
            found[key] = account_of(twelve_layers(method, **options))
        return found[key]

    return get


def own(result: Account, role: str) -> int:
    """Return the most that a role reaches by itself."""
    return result.own_peaks[role]


def shared_peaks(result: Account) -> tuple[int, int, int]:
    """Return the own peaks of parameters, gradients and optimizer."""
    return own(result, "parameters"), own(result, "gradients"), own(result, "optimizer")


def test_backprop_holds_four_times_its_parameters(measured: Cached) -> None:
    """Parameters, gradients and AdamW's two moments: 4.00 P, and its step counters, one float for each parameter."""
    result = measured("backprop")
    what = twelve_layers("backprop")
    parameters_bytes = sum(p.nbytes for p in what.build_network(task_of(what).shape).parameters())
    counters = own(result, "optimizer") - 2 * parameters_bytes
    assert shared_peaks(result)[:2] == (parameters_bytes, parameters_bytes)
    layer, outside = 12, 8  # norms 4, attention 4, mlp 4; patches 2, positions, class token, head 4
    assert counters == FLOAT * (12 * layer + outside)
    assert sum(shared_peaks(result)) / parameters_bytes == pytest.approx(4.00, abs=0.005)


def test_checkpointing_every_layer_keeps_a_fifth_of_the_activations(measured: Cached) -> None:
    """The method's saving would be gone, or it would have come out of another role."""
    reference, result = measured("backprop"), measured("checkpointing")
    assert shared_peaks(result) == shared_peaks(reference)
    assert own(result, "activations") <= own(reference, "activations") / 5


def test_sqrt_segments_need_activations_in_proportion_to_the_root_of_the_depth() -> None:
    """Chen's O(√n): the activations' own peak, reached when a segment of √L layers is recomputed beside √L borders.

    On L layers it is a·√L + c, where c (the loss, the head) does not grow; the exponent that is fitted over
    L = 4 … 36 is therefore .5 to within .02, and each further unit of √L costs the same bytes to the last one.
    """
    depths = (4, 9, 16, 25, 36)
    peaks = [own(account_of(resolved("checkpointing", depth=d, policy="sqrt")), "activations") for d in depths]
    exponent = np.polyfit(np.log(depths), np.log(peaks), 1)[0]
    assert exponent == pytest.approx(0.5, abs=0.02), peaks
    assert len(set(np.diff(peaks))) == 1, peaks


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_a_block_keeps_its_part_of_the_activations_and_of_everything(measured: Cached, blocks: int) -> None:
    """The claim of memory divided by B: activations within 1.4/B, and with ``active`` the whole peak within 1.5/B.

    Embedding, head and logits are in it, and so is what the modulation keeps.
    """
    reference, result = measured("backprop"), measured("diffusion_blocks", blocks=blocks, residency="active")
    activations = own(result, "activations") / own(reference, "activations")
    peak = result.peak_bytes / reference.peak_bytes
    print(f"B = {blocks}: activations {activations * blocks:.3f}/B, peak {peak * blocks:.3f}/B of backprop's")
    assert activations <= 1.4 / blocks
    assert peak <= 1.5 / blocks


def test_the_modulation_costs_about_a_quarter_more_activations_a_layer(measured: Cached) -> None:
    """The tax that the design owns up to would have changed. It is the growth by a layer, conditioned over plain."""
    three, four = (own(measured("diffusion_blocks", blocks=b, residency="active"), "activations") for b in (4, 3))
    conditioned = four - three
    deep = own(measured("backprop"), "activations")
    plain = (deep - own(measured("backprop", depth=6), "activations")) / 6
    print(f"activations of a layer: {plain:,.0f} bytes plain, {conditioned:,} conditioned, {conditioned / plain:.3f}×")
    assert 1.1 < conditioned / plain < 1.4


@pytest.mark.parametrize("shared", ["joint", "per_block"])
def test_what_leaves_the_device_is_gone_for_the_allocator_too(shared: str) -> None:
    """Bytes would be subtracted on paper: the allocator's own peak must fall by what the ledger's falls."""
    found = {}
    for residency in ("all", "state", "active"):
        what = resolved("diffusion_blocks", depth=2, blocks=2, residency=residency, shared=shared)
        found[residency] = measure(what, task_of(what))
    everything, whole = found["all"].account, found["all"].peaks.device_peak_bytes
    assert whole == everything.peak_bytes
    for residency in ("state", "active"):
        account, device = found[residency].account, found[residency].peaks.device_peak_bytes
        assert whole is not None and device is not None
        assert whole - device == everything.peak_bytes - account.peak_bytes
        moments = own(everything, "optimizer") - own(account, "optimizer")
        parameters = own(everything, "parameters") - own(account, "parameters")
        assert whole - device == moments + parameters
        assert moments > 0
        assert (parameters > 0) is (residency == "active")
