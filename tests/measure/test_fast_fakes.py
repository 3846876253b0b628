"""The fake mode that remembers against torch's own: the same trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_cells import make_cell
from torch._subclasses.fake_tensor import FakeTensorMode

from dbbench.harness import tracing
from dbbench.harness.resolve import resolve_cell
from dbbench.measure.fast_fakes import RememberingFakeMode
from dbbench.results.trace import Trace
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice

DIT: dict[str, Any] = {
    "task": TaskChoice(name="latents"),
    "network": NetworkChoice(name="dit", size="micro/2", depth=2),
}
LLAMA: dict[str, Any] = {
    "task": TaskChoice(name="tokens", sequence_length=32),  # type: ignore[call-arg]
    "network": NetworkChoice(name="llama", size="micro", depth=2),
    "precision": "bf16",
}
BLOCKS = {"blocks": 2, "residency": "active"}
CELLS = {
    "vit_blocks": make_cell("x", "diffusion_blocks", options=BLOCKS, precision="autocast_bf16"),
}
MORE = {
    "llama_greedy": make_cell("x", "greedy", options={"stages": 2}, **LLAMA),
    "dit_checkpointing": make_cell("x", "checkpointing", **DIT),
    "vit_backprop": make_cell("x"),
    "dit_blocks": make_cell("x", "diffusion_blocks", options=BLOCKS, **DIT),
    "llama_backprop": make_cell("x", **(LLAMA | {"precision": "autocast_bf16"})),
    "llama_blocks": make_cell("x", "diffusion_blocks", options=BLOCKS, **LLAMA),
    "llama_checkpointing": make_cell("x", "checkpointing", **LLAMA),
}


def events(trace: Trace) -> list[tuple[int, int, int]]:
    """Return the events op by op: autocast lets its casts go in the order of their addresses, new in every pass."""
    return sorted(zip(trace.event_op, trace.event_storage, trace.event_bytes, strict=True))


def require_same(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve_cell(cell, "test")
    ours = tracing.ledger_pass(resolved, resolved.load_task(), fake=True)
    monkeypatch.setattr(tracing, "RememberingFakeMode", FakeTensorMode)
    torchs = tracing.ledger_pass(resolved, resolved.load_task(), fake=True)
    assert events(ours.trace) == events(torchs.trace)
    unordered = {"event_storage": [], "event_bytes": [], "event_op": []}
    assert replace(ours.trace, **unordered) == replace(torchs.trace, **unordered)
    assert ours.flops_by_block == torchs.flops_by_block
    assert ours.uncounted == torchs.uncounted


@pytest.mark.parametrize("name", CELLS)
def test_the_trace_is_that_of_torchs_own_fake_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that was remembered wrongly would change an estimate's bytes."""
    require_same(CELLS[name], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_so_is_that_of_every_other_kind_of_cell(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network has ops of its own."""
    require_same(MORE[name], monkeypatch)


def test_results_alias_what_torchs_alias() -> None:
    """A view would get bytes of its own, or an op in place a new tensor: the second call is the one that remembers."""
    with RememberingFakeMode():
        for _ in range(2):
            x = torch.ones(4, 6)
            assert x.view(24).untyped_storage()._cdata == x.untyped_storage()._cdata
            assert x.add_(1) is x
            assert {part.untyped_storage()._cdata for part in x.split(2)} == {x.untyped_storage()._cdata}
            assert [part.storage_offset() for part in x.split(2)] == [0, 12]
            norm = torch.native_layer_norm(x, (6,), None, None, 1e-5)
            assert len({part.untyped_storage()._cdata for part in norm}) == 3
            assert (x + 1).dtype is torch.float32
            assert (x.to(torch.int64) + 1).dtype is torch.int64
            assert (x.to(torch.int64) + 1.0).dtype is torch.float32


def test_numbers_are_not_remembered() -> None:
    """A tensor made of a number keeps that number; another call must not get the first one's."""
    with RememberingFakeMode():
        assert [torch.tensor(value).item() for value in (1, 2, 2, 3)] == [1, 2, 2, 3]
