"""What a layer keeps for its backward: the derivations in the networks' docstrings, against the ledger, to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_cells import make_cell

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import ledger_pass
from dbbench.suite.cell import NetworkChoice, TaskChoice

BATCH = 2
BYTES = {"fp32": 4, "bf16": 2}
IMAGES = TaskChoice(name="images", image_size=32, classes=5)
LATENTS = TaskChoice(name="latents", size=8)
TOKENS = TaskChoice(name="tokens", vocabulary=1000, sequence_length=48)


def a_layer_keeps(task: TaskChoice, network: NetworkChoice, precision: str, **options: Any) -> int:
    """Return by how much one more layer raises the most that activations reach, in bytes."""
    method = options.pop("method", "backprop")
    peaks = []
    for depth in (2, 3):
        deeper = network.model_copy(update={"depth": depth})
        cell = make_cell(
            method, method, task=task, network=deeper, batch_size=BATCH, precision=precision, options=options
        )
        resolved = resolve_cell(cell, cell.suite)
        account = ledger_pass(resolved, resolved.load_task(), fake=True).account
        peaks.append(account.own_peaks["activations"])
    return peaks[1] - peaks[0]


def statistics(tokens: int, heads: int, precision: str) -> int:
    """Return the bytes of two layer norms' means and deviations, and of attention's log-sum-exp."""
    return BATCH * tokens * (4 * BYTES[precision] + 4 * heads)


#: One precision of each network is quick, the other a slow test.
BOTH = ["fp32", pytest.param("bf16", marks=pytest.mark.slow)]


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("method", ["backprop", pytest.param("diffusion_blocks", marks=pytest.mark.slow)])
def test_a_vision_layer_keeps_what_its_docstring_adds_up_to(method: str, precision: str) -> None:
    """The derivation of 8 + 2r (plain) or 12 + 2r (adaptive) residual streams would be of another layer."""
    tokens, width, heads, mlp_width = (32 // 8) ** 2 + 1, 768, 12, 3072
    options = {"method": method} | ({"blocks": 1} if method == "diffusion_blocks" else {})
    kept = a_layer_keeps(IMAGES, NetworkChoice(name="vit", size="base", patch=8), precision, **options)
    stream = BATCH * tokens * width * BYTES[precision]
    streams = (8 if method == "backprop" else 12) * stream + 2 * stream * mlp_width // width
    modulation = 0 if method == "backprop" else 5 * BATCH * width * BYTES[precision]
    assert kept == streams + statistics(tokens, heads, precision) + modulation


@pytest.mark.parametrize("precision", BOTH)
def test_a_diffusion_transformers_layer_keeps_twenty_streams(precision: str) -> None:
    """The derivation of 12 + 2r residual streams would be of another layer than DiT's."""
    tokens, width, heads = 16, 384, 6
    kept = a_layer_keeps(LATENTS, NetworkChoice(name="dit", size="S/2"), precision)
    number = BYTES[precision]
    expected = 20 * BATCH * tokens * width * number + statistics(tokens, heads, precision) + 5 * BATCH * width * number
    assert kept == expected


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_a_decoder_layer_keeps_what_its_docstring_adds_up_to(precision: str) -> None:
    """The derivation of 8 + 2f + 4r residual streams would be of another layer than Llama's."""
    tokens, width, heads, mlp_width = 48, 768, 12, 2048
    kept = a_layer_keeps(TOKENS, NetworkChoice(name="llama", size="124m"), precision)
    number = BYTES[precision]
    f = 4 // number
    stream = BATCH * tokens * width * number
    assert kept == (8 + 2 * f) * stream + 4 * stream * mlp_width // width + BATCH * tokens * 4 * (2 + heads)
