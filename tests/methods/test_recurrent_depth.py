"""Training a network of recurrent depth: through K′ of its K applications, or through one as a denoiser."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.harness.contract import check_method
from dbbench.harness.resolve import Resolved, describe, resolve_cell
from dbbench.harness.tracing import Measured, ledger_pass
from dbbench.measure.account import own_peaks_within
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice

VOCABULARY, TOKENS, BATCH = 11, 6, 8


def cell(method: str, network: dict[str, Any] | None = None, precision: str = "fp32", **options: Any) -> Cell:
    task = TaskChoice(name="tokens", vocabulary=VOCABULARY, sequence_length=TOKENS)
    choice = NetworkChoice(name="recurrent", size="micro", **(network or {}))
    return make_cell(
        method, method, task=task, network=choice, batch_size=BATCH, options=options, precision=precision
    )  # fmt: skip


def resolved(method: str, network: dict[str, Any] | None = None, **options: Any) -> Resolved:
    return resolve_cell(cell(method, network, **options), "test")


def built(method: str, network: dict[str, Any] | None = None, **options: Any) -> Method:
    what = resolved(method, network, **options)
    return what.build(what.load_task())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("backprop", {}),
        ("backprop", {"truncate": 2}),
        ("checkpointing", {"policy": "sqrt"}),
        ("checkpointing", {"truncate": 1}),
        ("diffusion_blocks", {"blocks": 1}),
        ("diffusion_blocks", {"blocks": 1, "shared": "per_block", "residency": "active"}),
    ],
    ids=["backprop", "truncated", "checkpointing", "checkpointing_truncated", "denoiser", "denoiser_active"],
)
def test_a_method_keeps_the_contract(method: str, options: dict[str, Any]) -> None:
    """A layer that runs several times would be counted, cut, changed or restored wrongly."""
    check_method(cell(method, **options))


@pytest.mark.parametrize("precision", ["bf16", "autocast_bf16"])
@pytest.mark.parametrize(("method", "options"), [("backprop", {"truncate": 2}), ("diffusion_blocks", {"blocks": 1})])
def test_it_does_in_low_precision(method: str, options: dict[str, Any], precision: str) -> None:
    """A method would work in fp32 alone."""
    check_method(cell(method, precision=precision, **options))


@pytest.mark.parametrize(
    ("method", "options", "complaint"),
    [
        ("greedy", {"stages": 2}, "'greedy' freezes layers, and this network runs the same ones 3 times over"),
        ("diffusion_blocks", {"blocks": 2}, "blocks: must be 1, not 2, where a network runs its layers 3 times over"),
        ("backprop", {"truncate": 4}, "truncate: 4 is more than the 3 times that the network's layers run"),
    ],
)
def test_what_a_recurrence_rules_out_is_refused_in_words(method: str, options: dict[str, Any], complaint: str) -> None:
    """A layer would be frozen and trained again, or belong to two blocks, without a word."""
    with pytest.raises(BadInput, match=complaint):
        describe(cell(method, **options))


@pytest.mark.parametrize("options", [{}, {"truncate": 1}, {"truncate": 2}])
def test_a_layer_of_the_core_is_updated_once_a_step(options: dict[str, Any]) -> None:
    """Equal layer updates would be unequal training: K applications make one update, as one application does."""
    backprop, blocks = built("backprop", **options), built("diffusion_blocks", blocks=1)
    assert backprop.layers_per_block == blocks.layers_per_block == [2]
    batch, plan = backprop.task.train_batch(0), Plan(0, 0, 0, 0.5, 0.5)
    assert backprop.step(batch, plan).layers_updated == blocks.step(batch, plan).layers_updated == 2


@pytest.mark.parametrize("method", ["backprop", "checkpointing"])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_gradients_stop_at_the_last_recurrences(monkeypatch: pytest.MonkeyPatch, method: str, kept: int) -> None:
    """The baseline would be another than truncated backpropagation through time: by hand, the state is cut off behind
    the first K − K′ applications, and e, which is given anew each time, is not."""
    trained = built(method, truncate=kept)
    network, batch = trained.network, trained.task.train_batch(0)
    state = network.embed(batch.inputs)
    x = state.x
    for time in range(3):
        x = network.run(type(state)(x, state.context), [0, 1])
        x = x.detach() if time < 3 - kept else x
    trained.task.loss(network.outputs(x, state.context), batch.targets).mean().backward()
    expected = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    found: dict[str, torch.Tensor | None] = {}
    (optimizer,) = trained.optimizers
    monkeypatch.setattr(
        optimizer, "step", lambda: found.update({name: p.grad for name, p in network.named_parameters()})
    )
    trained.step(batch, Plan(0, 0, 0, 0.5, 0.5))
    for name, gradient in expected.items():
        assert gradient is not None and found[name] is not None
        assert torch.allclose(gradient, found[name], atol=1e-6), name
    assert expected["prelude.0.attention.q.weight"].abs().sum() > 0  # type: ignore[union-attr]


def test_a_prediction_applies_the_core_as_often_as_the_network_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denoiser would be asked for fewer or more steps than the network that it is compared with takes."""
    for method, options in (("backprop", {"truncate": 1}), ("diffusion_blocks", {"blocks": 1})):
        trained, calls = built(method, {"recurrences": 5}, **options), []
        trained.network.layers[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with torch.no_grad():
            trained.predict(trained.task.train_batch(0).inputs)
        assert len(calls) == 5


# ------------------------------------------------------------------ what it costs, on fake tensors

WIDTH, MLP, LENGTH, WORDS, LAYERS = 64, 176, 64, 96, 2
COSTLY = {"name": "recurrent", "size": "tiny", "width": WIDTH, "depth": LAYERS}


@lru_cache
def traced(method: str, times: int, **options: Any) -> Measured:
    """Return what a step of ``method`` costs on a network of K = ``times``."""
    task = TaskChoice(name="tokens", vocabulary=WORDS, sequence_length=LENGTH)
    network = NetworkChoice(**COSTLY, recurrences=times)
    what = resolve_cell(
        make_cell(method, method, task=task, network=network, batch_size=BATCH, options=options), "test"
    )
    return ledger_pass(what, what.load_task(), fake=True)


def core_activations(measured: Measured) -> int:
    """Return the own peak of activations that the core's modules made, bytes."""
    return own_peaks_within(measured.trace, lambda path: path.startswith("layers."))["activations"]


def flops(measured: Measured) -> int:
    return sum(measured.flops_by_block[0].values())


def test_activations_of_the_core_are_one_application_s() -> None:
    """The claim of recurrent depth: at most 1.4/K′ of what backpropagation through K′ unrolled steps holds there. And
    by itself that grows by the same bytes with each step: an application's storages are all the core's modules'."""
    denoiser = traced("diffusion_blocks", 8, blocks=1)
    held = {kept: traced("backprop", 8, truncate=kept) for kept in (1, 2, 8)}
    each = core_activations(held[2]) - core_activations(held[1])
    for kept, measured in held.items():
        assert core_activations(measured) == core_activations(held[1]) + (kept - 1) * each
        ratio = core_activations(denoiser) / core_activations(measured)
        whole = denoiser.account.own_peaks["activations"] / measured.account.own_peaks["activations"]
        peak = denoiser.account.peak_bytes / measured.account.peak_bytes
        print(
            f"K' = {kept}: core {ratio * kept:.3f}/K', activations of the whole network {whole * kept:.3f}/K', "
            f"peak {peak:.3f} of backprop's"
        )
        assert ratio <= 1.4 / kept
        assert ratio <= whole <= 1.05 or kept == 1  # prelude, coda and head do not divide


def test_training_flops_are_in_the_ratio_that_the_theory_gives() -> None:
    """The claimed saving would be another. In units of a forward, a backward being two: backpropagation through K′ of K
    applications takes (P + K·R + C + H) + 2·(P + K′·R + C + H), the denoiser 3·(P + R + C + H)."""
    tokens = BATCH * LENGTH
    layer = 2 * tokens * (4 * WIDTH**2 + 3 * WIDTH * MLP) + 4 * tokens * LENGTH * WIDTH
    core, around = LAYERS * layer + 2 * tokens * 2 * WIDTH**2, 2 * layer + 2 * tokens * WIDTH * WORDS
    denoiser = flops(traced("diffusion_blocks", 8, blocks=1))
    for times, kept in ((8, 8), (8, 2), (16, 8)):
        expected = (3 * around + (times + 2 * kept) * core) / (3 * (around + core))
        found = flops(traced("backprop", times, truncate=kept)) / denoiser
        print(f"K = {times}, K' = {kept}: {found:.2f} times the denoiser's FLOPs, {expected:.2f} in theory")
        assert found == pytest.approx(expected, rel=0.04)


def test_flops_grow_by_one_forward_with_k_and_by_one_backward_with_k_prime() -> None:
    """An application would be counted twice, or one without a graph be trained."""
    grid = {(k, kept): flops(traced("backprop", k, truncate=kept)) for k in (2, 3, 5) for kept in (1, 2)}
    forwards = {(grid[b, kept] - grid[a, kept]) / (b - a) for a, b in ((2, 3), (3, 5)) for kept in (1, 2)}
    backwards = {grid[k, 2] - grid[k, 1] for k in (2, 3, 5)}
    assert len(forwards) == len(backwards) == 1
    assert backwards.pop() / forwards.pop() == pytest.approx(2, rel=0.06)  # flash attention's is 2.5
