"""Both ways of a noisy stream to see its clean past: one function, two bills. And what a clean loss adds to either."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from test_text_mask import BATCH, BLOCKS, TOKENS, blocks, text
from tiny_cells import make_cell
from torch import Tensor
from torch.nn import functional as F

from dbbench.errors import BadInput
from dbbench.harness.contract import check_method
from dbbench.harness.resolve import describe, resolve_cell
from dbbench.harness.tracing import ledger_pass
from dbbench.methods.base import Plan
from dbbench.methods.diffusion_blocks import DiffusionBlocks
from dbbench.suite.cell import NetworkChoice, TaskChoice
from dbbench.tasks.base import Batch

LEVELS = torch.tensor([0.3, 2.0])


def noise(method: DiffusionBlocks) -> Tensor:
    return torch.randn(BATCH, TOKENS, method.network.width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_both_ways_give_the_same_logits(block: int) -> None:
    """One of them would be another model: the condition, the positions or the mask of a stream differ."""
    one, other = blocks("concatenated"), blocks("two_pass")
    with torch.no_grad():
        expected = one.denoise(text(), noise(one), LEVELS, block)
        assert torch.allclose(other.denoise(text(), noise(one), LEVELS, block), expected, rtol=1e-4, atol=1e-5)
        ask = other.asked(text(), LEVELS, block)
        for z in (torch.zeros_like(noise(one)), noise(one)):  # keys and values serve one z after another
            again = ask(z)
        assert torch.allclose(again, expected, rtol=1e-4, atol=1e-5)
        plain = one.network(text())
    assert not torch.allclose(expected, plain, atol=0.1)


@pytest.mark.parametrize("clean_weight", [0.0, 0.7])
def test_both_ways_give_the_same_gradients(clean_weight: float) -> None:
    """A way would train another model: a gradient does not come back through the keys and values."""
    found = []
    for way in ("concatenated", "two_pass"):
        method = blocks(way, clean_weight=clean_weight)
        batch = Batch(text(), text().flip(0))
        losses, clean = method._losses(batch, noise(method), LEVELS, 1)
        loss = losses.sum() if clean is None else losses.sum() + clean.sum()
        named = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        found.append(dict(zip(named, gradients, strict=True)))
    assert any(g is not None and g.abs().max() > 0 for n, g in found[0].items() if "attention.k" in n)
    for name, expected in found[0].items():
        other = found[1][name]
        if expected is None:
            assert other is None, name
        else:
            assert torch.allclose(other, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())), name


@pytest.mark.parametrize("way", ["concatenated", "two_pass"])
def test_the_clean_loss_is_that_of_the_plain_stream(way: str) -> None:
    """``clean_weight`` would weigh something else than the cross-entropy of the clean stream's next tokens."""
    method = blocks(way, clean_weight=0.7, weighting="none")
    plan, batch = Plan(0, 1, 0, 0.5, 0.5), Batch(text(), text().flip(0))
    streams, head = method.setting.streams, method.network.head
    sigma = method.law.sample(method.law.widen(method.intervals[1], 0.05), BATCH, streams.generator("sigma", 1, 0))
    epsilon = torch.randn(BATCH, TOKENS, method.network.width, generator=streams.generator("noise", 1, 0))
    z = F.normalize(method.network.embedding.weight[batch.targets], dim=-1) + sigma.view(-1, 1, 1) * epsilon
    noisy = method.denoise(batch.inputs, z, sigma, 1)
    condition = method.fronts[0].noise(sigma.log() / 4)
    x = method.network.run(method.network.embed(batch.inputs), method._indices(1), condition)  # no noisy stream
    block, clean = (F.cross_entropy(v.flatten(0, 1), batch.targets.flatten()) for v in (noisy, head(x, condition)))
    (expected,) = torch.autograd.grad(block + 0.7 * clean, head.linear.weight)
    seen: list[Tensor] = []
    method.optimizers[0].register_step_pre_hook(lambda *_: seen.append(head.linear.weight.grad.clone()))
    report = method.step(batch, plan)
    assert float(report.loss) == pytest.approx(float(block.detach()), rel=1e-5)  # the block's own
    assert torch.allclose(seen[0], expected, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------- what they keep, in bytes

WIDTH, MLP, HEADS, LENGTH, ROWS, VOCABULARY = 768, 2048, 12, 48, 2, 3000
STREAM = ROWS * LENGTH * WIDTH * 4
ROW = ROWS * WIDTH * 4
LAYER = 14 * STREAM + 4 * STREAM * MLP // WIDTH + ROWS * LENGTH * 4 * (2 + HEADS)  # with norms' roots and log-sum-exps
FRONT = 2 * LENGTH * WIDTH // HEADS * 4 + (4 - 2) * LENGTH**2 * 4  # waves for both streams, and the larger mask


@lru_cache
def activations(depth: int, **options: Any) -> int:
    """Return the own peak of activations of one block of ``depth`` layers, on fake tensors."""
    task = TaskChoice(name="tokens", vocabulary=VOCABULARY, sequence_length=LENGTH)
    network = NetworkChoice(name="llama", size="124m", depth=depth)
    chosen = {"blocks": 1} | options
    resolved = resolve_cell(
        make_cell("b", "diffusion_blocks", task=task, network=network, batch_size=ROWS, options=chosen), "test"
    )
    return ledger_pass(resolved, resolved.load_task(), fake=True).account.own_peaks["activations"]


def test_a_further_layer_keeps_two_streams_and_two_passes_keep_keys_and_values_twice() -> None:
    """The derivation in `DenoisedTokens` would be of other layers."""
    one, two = ([activations(depth, streams=way) for depth in (1, 2)] for way in ("concatenated", "two_pass"))
    assert one[1] - one[0] == 2 * LAYER + 5 * ROW
    assert two[1] - two[0] == 2 * LAYER + 10 * ROW + 2 * STREAM


@pytest.mark.parametrize("layers", [1, 2])
def test_two_passes_spare_the_end_of_the_clean_stream(layers: int) -> None:
    """A doubled sequence would be billed to both ways alike, or a saving be claimed that is none."""
    difference = activations(layers, streams="two_pass") - activations(layers, streams="concatenated")
    spared = 8 * STREAM + 4 * STREAM * MLP // WIDTH + ROWS * LENGTH * 4 * (1 + HEADS)
    assert difference == (2 * STREAM + 5 * ROW) * (layers - 1) + 2 * ROW - spared - FRONT


def test_a_clean_loss_keeps_a_second_head_and_its_logits_and_undoes_the_saving() -> None:
    """What closes the gap would look free: both heads' logits are there at once, and the clean stream to its end."""
    logits = ROWS * LENGTH * VOCABULARY * 4
    small = ROWS * LENGTH * (4 + 8) + 4 + 2 * ROW  # the norm's root; the loss's targets and weight; the modulation
    added = activations(2, clean_weight=1.0) - activations(2, streams="concatenated")
    assert added == logits + 5 * STREAM + small  # it keeps both streams for the half that it reads
    both = [activations(2, clean_weight=1.0, streams=way) for way in ("concatenated", "two_pass")]
    assert both[1] - both[0] == 2 * (2 * STREAM + 5 * ROW) - STREAM - FRONT
    assert both[1] > both[0]


@pytest.mark.parametrize("precision", ["fp32", "autocast_bf16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_two_passes_with_a_clean_loss_keep_the_contract(precision: str) -> None:
    """A step would not run on fake tensors, not repeat, or change what it may not."""
    task = TaskChoice(name="tokens", vocabulary=11, sequence_length=6)
    options = {"blocks": 2, "streams": "two_pass", "clean_weight": 0.5, "residency": "active", "shared": "per_block"}
    network = NetworkChoice(name="llama", size="micro", depth=3)
    check_method(make_cell("b", "diffusion_blocks", task=task, network=network, options=options, precision=precision))


@pytest.mark.parametrize(("key", "value"), [("streams", "two_pass"), ("clean_weight", 0.5)])
def test_options_of_text_are_refused_elsewhere(key: str, value: Any) -> None:
    """An option would be read and do nothing."""
    cell = make_cell("b", "diffusion_blocks", options={"blocks": 2, key: value})
    with pytest.raises(BadInput, match=f"{key}: is for text"):
        describe(cell)
