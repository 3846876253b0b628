"""On text every method, in every form and way of predicting, gives a distribution over the vocabulary."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_cells import make_cell

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.harness.training import Loop
from dbbench.methods.base import Plan
from dbbench.suite.cell import NetworkChoice, OptimizerChoice, TaskChoice

VOCABULARY, TOKENS, BATCH = 7, 6, 4
PLAIN, MASKED = (TaskChoice(name=n, vocabulary=VOCABULARY, sequence_length=TOKENS) for n in ("tokens", "masked_tokens"))
LLAMA, DENOISER = (NetworkChoice(name=name, size="micro", depth=3) for name in ("llama", "masked"))
RECURRENT, COUNTS = NetworkChoice(name="recurrent", size="micro"), NetworkChoice(name="counts")
HEADS, CHAIN = {"", "ensemble", "head_0", "head_1"}, {"", "first_block", "draws_1", "draws_3"}
DRAWS: dict[str, Any] = {"shown_draws": [1, 3], "inference_draws": 2}

# what test_perplexity.py has not: (task, network, method, options, its ways of predicting)
Case = tuple[TaskChoice, NetworkChoice, str, dict[str, Any], set[str]]
CASES: dict[str, Case] = {f"ngram_{k}": (PLAIN, COUNTS, "ngram", {"order": k}, {""}) for k in (0, 1, 2, 4)}
CASES |= {
    f"blocks_{streams}{'_clean' * bool(clean)}{'_own' * (shared == 'per_block')}": (
        PLAIN,
        LLAMA,
        "diffusion_blocks",
        {"blocks": 2, "streams": streams, "clean_weight": clean, "shared": shared} | DRAWS,
        CHAIN,
    )
    for streams in ("concatenated", "two_pass")
    for clean in (0.0, 0.5)
    for shared in ("joint", "per_block")
}
CASES |= {
    "blocks_edges": (
        PLAIN,
        LLAMA,
        "diffusion_blocks",
        {"blocks": 3, "inference_grid": "block_edges", "output": "plain", "weighting": "none"} | DRAWS,
        CHAIN,
    ),
    "greedy_last_head": (PLAIN, LLAMA, "greedy", {"stages": 2}, HEADS),
    "masked_backprop": (MASKED, DENOISER, "backprop", {}, {""}),
    "masked_checkpointing": (MASKED, DENOISER, "checkpointing", {"policy": "sqrt"}, {""}),
    "masked_greedy": (MASKED, DENOISER, "greedy", {"stages": 2, "ensemble": True}, HEADS),
    "masked_blocks_1": (MASKED, DENOISER, "masked_blocks", {"blocks": 1}, {"", "first_block"}),
    "masked_blocks_3": (MASKED, DENOISER, "masked_blocks", {"residency": "active"}, {"", "first_block"}),
    "masked_blocks_own": (MASKED, DENOISER, "masked_blocks", {"shared": "per_block"}, {"", "first_block"}),
    "recurrent_backprop": (PLAIN, RECURRENT, "backprop", {}, {""}),
    "recurrent_truncated": (PLAIN, RECURRENT, "backprop", {"truncate": 1}, {""}),
    "recurrent_checkpointing": (PLAIN, RECURRENT, "checkpointing", {"truncate": 2}, {""}),
    "recurrent_blocks": (PLAIN, RECURRENT, "diffusion_blocks", {"blocks": 1} | DRAWS, CHAIN),
    "recurrent_blocks_plain": (PLAIN, RECURRENT, "diffusion_blocks", {"blocks": 1, "output": "plain"} | DRAWS, CHAIN),
}


@pytest.mark.parametrize("name", CASES)
def test_every_way_sums_to_one_after_some_training(name: str) -> None:
    """A perplexity, a bound or a sample would be of scores that are no probabilities."""
    task, network, which, options, ways = CASES[name]
    cell = make_cell(
        name, which, task=task, network=network, batch_size=BATCH, options=options, optimizer=OptimizerChoice(lr=0.03)
    )
    resolved = resolve_cell(cell, "test")
    method = resolved.build(resolved.load_task())
    loop, choose = Loop(method, method.task, cell), random.Random(name)
    blocks = [plan.block for plan, _ in rehearsal(method)]
    if not method.staged:
        blocks += [choose.randrange(method.blocks) for _ in range(3)]
    for step, block in enumerate(blocks):
        loop.step(Plan(step, block, step, 0.5, 0.5))
    batch = next(iter(method.task.evaluation_batches("test")))
    with torch.no_grad():
        found, own = method.predict(batch.inputs), method.predict_own(batch.inputs)
    assert set(found) == ways
    assert torch.equal(own, found[""])
    for way, prediction in found.items():
        assert prediction.shape == (BATCH, TOKENS, VOCABULARY), way
        assert torch.isfinite(prediction).all(), way
        assert prediction.double().exp().sum(dim=-1).sub(1).abs().max() < 1e-5, way


def test_a_denoiser_of_recurrent_depth_has_its_first_step_and_its_draws_beside_the_chain() -> None:
    """A reader could not see whether a gap comes from the chain, from the noise that it began with, or from neither."""
    cell = make_cell(
        "r", "diffusion_blocks", task=PLAIN, network=RECURRENT, batch_size=BATCH, options={"blocks": 1} | DRAWS
    )
    resolved = resolve_cell(cell, "test")
    method: Any = resolved.build(resolved.load_task())
    inputs = method.task.train_batch(0).inputs
    with torch.no_grad():
        ways = method.predict(inputs)
        noise = torch.randn(
            BATCH, TOKENS, method.network.width, generator=method.setting.streams.generator("inference", 0)
        )
        level = torch.full((BATCH,), method.law.sigma_max)
        first = method.task.prediction(method.denoise(inputs, method.law.sigma_max * noise, level, 0))
    assert torch.allclose(ways["first_block"], first, atol=1e-6)
    assert len(method.sigmas) == method.network.recurrences == 3
    assert not torch.allclose(ways["draws_1"], ways["first_block"], atol=1e-4)
    assert not torch.allclose(ways["draws_3"], ways["draws_1"], atol=1e-4)
