"""DiffusionBlocks on masked text: who owns which times, and what each block is trained and asked for."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.harness.contract import check_method
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.methods.base import Plan
from dbbench.methods.masked_blocks import MaskedBlocks
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice
from dbbench.tasks.masked_text import MaskedTextFolder
from dbbench.tasks.masks import FIRST_TIME

LENGTH = 8


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a text of four letters."""
    folder = tmp_path_factory.mktemp("text")
    random = np.random.Generator(np.random.PCG64(0))
    (folder / "text.txt").write_text("".join(random.choice(list("abcd"), 8000)))
    return folder


def cell(text: Path, method: str = "masked_blocks", precision: str = "fp32", **options: Any) -> Cell:
    task = TaskChoice(name="masked_text_folder", folder=str(text), vocabulary_size=5, sequence_length=LENGTH)
    network = NetworkChoice(name="masked", size="micro", depth=3)
    return make_cell(
        method, method, task=task, network=network, batch_size=8, options=options, precision=precision
    )  # fmt: skip


def built(text: Path, **options: Any) -> MaskedBlocks:
    what = resolve_cell(cell(text, **options), "test")
    method = what.build(what.load_task())
    assert isinstance(method, MaskedBlocks)
    return method


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("backprop", {}),
        ("checkpointing", {}),
        ("greedy", {"stages": 2, "ensemble": True}),
        ("masked_blocks", {"blocks": 2, "residency": "active"}),
        ("masked_blocks", {"blocks": 3, "shared": "per_block", "residency": "state"}),
    ],
    ids=["backprop", "checkpointing", "greedy", "blocks_active", "blocks_own_parts"],
)
def test_every_method_keeps_the_contract_on_masked_text(text: Path, method: str, options: dict[str, Any]) -> None:
    """The task would need a case of its own in the harness, or a prediction not sum to one over the vocabulary."""
    check_method(cell(text, method, **options))


@pytest.mark.parametrize("precision", ["bf16", "autocast_bf16"])
def test_it_does_in_low_precision(text: Path, precision: str) -> None:
    """The method would work in fp32 alone."""
    check_method(cell(text, precision=precision, blocks=2))


def test_blocks_own_equal_decrements_of_alpha_the_first_the_most_masked(text: Path) -> None:
    """The partition would not be the paper's, t_b = b/B."""
    method = built(text, blocks=3, overlap=0.1)
    alphas = [(1 - high, 1 - low) for low, high in method.intervals]
    assert np.allclose([high - low for low, high in alphas], 1 / 3)
    assert alphas[0][0] == 0.0 and alphas[-1][1] == 1.0
    assert all(low[1] == pytest.approx(high[0]) for low, high in pairwise(alphas))
    assert method.interval(1) == pytest.approx((1 / 3 - 0.1 / 3, 2 / 3 + 0.1 / 3))
    assert (method.interval(0)[1], method.interval(2)[0]) == (1.0, FIRST_TIME)


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_block_is_trained_at_its_own_times_on_the_weighted_loss(
    text: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    """A block would learn another part than it is asked for, or the blocks' mean loss not be the bound: of a network
    whose answer is uniform it is the logarithm of the vocabulary, whatever the block."""
    method, seen = built(text, blocks=blocks, overlap=0.0), []
    real = MaskedTextFolder.masked

    def masked(self: MaskedTextFolder, tokens: Any, t: Any, uniform: Any) -> Any:
        seen.append(t)
        return real(self, tokens, t, uniform)

    monkeypatch.setattr(MaskedTextFolder, "masked", masked)
    with torch.no_grad():
        method.network.head.linear.weight.zero_()
    method.setting.optimizer.__dict__["lr"] = 0.0  # so that it stays uniform
    batch = method.task.train_batch(0)
    losses = []
    for step in range(60):
        for block in range(blocks):
            seen.clear()
            losses.append(method.step(batch, Plan(step, block, step, 0.5, 0.5)).loss.item())
            low, high = method.interval(block)
            assert all(low <= t <= high for t in seen[0].tolist())
    assert np.mean(losses) == pytest.approx(math.log(5), rel=0.06)


def test_the_block_that_owns_the_time_answers(text: Path) -> None:
    """A text would be scored by a block that has not learnt its time."""
    method = built(text, blocks=3)
    for plan, _ in rehearsal(method):
        method.step(method.task.train_batch(plan.block_step), plan)
    t = torch.tensor([0.001, 0.2, 0.34, 0.5, 0.66, 0.7, 0.9, 1.0])
    inputs = method.task.train_batch(5).inputs | {"t": t}
    with torch.no_grad():
        ways = method.predict(inputs)
        own = [method.task.prediction(method.outputs(inputs, block)) for block in range(3)]
        late = method.task.prediction(method.outputs(inputs | {"t": t.clamp(min=2 / 3)}, 0))
    owners = [2, 2, 1, 1, 1, 0, 0, 0]
    expected = torch.stack([own[owner][row] for row, owner in enumerate(owners)])
    assert torch.allclose(ways[""], expected, atol=1e-6)
    assert torch.allclose(ways["first_block"], late, atol=1e-6)


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_block_is_end_to_end_training_of_the_same_loss(text: Path, blocks: int) -> None:
    """What blocks are compared with would be another objective: with one block a step is backprop's on the same masks,
    and with two it is not."""
    method = built(text, blocks=blocks, overlap=0.0)
    what = resolve_cell(cell(text, "backprop"), "test")
    reference = what.build(what.load_task())
    streams, clean = method.setting.streams, method.task.train_batch(0).clean
    method.step(method.task.train_batch(0), Plan(0, 0, 0, 0.5, 0.5))
    start = torch.rand(1, generator=streams.generator("time", 0, 0))
    t = FIRST_TIME + (1 - FIRST_TIME) * ((start + torch.arange(8) / 8) % 1.0)
    uniform = torch.rand(clean.shape, generator=streams.generator("noise", 0, 0))
    reference.step(method.task.masked(clean, t, uniform), Plan(0, 0, 0, 0.5, 0.5))
    mine, theirs = dict(method.network.named_parameters()), dict(reference.network.named_parameters())
    same = all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in mine)
    assert same is (blocks == 1)


@pytest.mark.parametrize(
    ("method", "task", "network", "complaint"),
    [
        ("masked_blocks", "tokens", "llama", "'masked_blocks' needs masked tokens, and this task has tokens"),
        ("diffusion_blocks", "masked_plays", "masked", "'diffusion_blocks' has no noise for masked tokens"),
    ],
)
def test_the_wrong_form_is_refused_in_words(method: str, task: str, network: str, complaint: str) -> None:
    """A suite with the form for another task would end in a traceback."""
    from dbbench.harness.resolve import describe

    choice = NetworkChoice(name=network, size="micro")
    with pytest.raises(BadInput, match=complaint):
        describe(make_cell(method, method, task=TaskChoice(name=task), network=choice))
