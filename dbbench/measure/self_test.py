"""Tries every private symbol of torch that the ledger rests on: if a release changes one, ``dbbench doctor`` says which
figure is lost, instead of a ledger that is quietly wrong."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint as torch_checkpoint

from dbbench.measure import private


def _storage_finaliser() -> bool:
    freed: list[int] = []
    tensor = torch.empty(8)
    reference = weakref.ref(tensor.untyped_storage(), lambda _: freed.append(1))
    view = tensor[2:]
    del tensor
    alive = not freed
    del view
    return alive and freed == [1] and reference() is None


def _sequence_numbers() -> bool:
    x = torch.ones(2, requires_grad=True)
    before = private.next_sequence_number()
    y = x * 2
    return private.node_sequence_number(y.grad_fn) == before and private.next_sequence_number() == before + 1


def _saved_by_nodes() -> bool:
    x = torch.ones(2, requires_grad=True)
    y, z = (x * 2.0).exp(), x * 3.0
    number = private.kept_number(z.grad_fn)
    (kept,) = private.saved_by(y.grad_fn)
    return private.storage_key(kept) == private.storage_key(y) and number is not None and number.item() == 3.0


def _graph_task() -> bool:
    seen: list[tuple[int, Any]] = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: seen.append((private.graph_task(), private.current_node())))
    y.sum().backward()
    return private.graph_task() == -1 and seen[0][0] != -1


def _recomputation() -> bool:
    entered: list[object] = []
    original = saved_tensors_hooks.__enter__

    def enter(hooks: saved_tensors_hooks) -> None:
        entered.append(hooks)
        original(hooks)

    saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
    try:
        x = torch.ones(2, requires_grad=True)
        torch_checkpoint.checkpoint(lambda t: t.exp(), x, use_reentrant=False).sum().backward()
    finally:
        saved_tensors_hooks.__enter__ = original  # type: ignore[method-assign]
    return any(private.is_recomputation(hooks) for hooks in entered)


def _modes_in_force() -> bool:
    with private.TorchDispatchMode() as mode:
        inside = private.modes_in_force()
    return mode in inside and mode not in private.modes_in_force()


def _node_metadata() -> bool:
    node: Any = (torch.ones(2, requires_grad=True) * 2).grad_fn
    node.metadata["key"] = "left here"
    return bool(node.metadata["key"] == "left here")


def _flop_formulas() -> bool:
    shapes = ((2, 3), (3, 4))
    whole = private.flop_registry[torch.ops.aten.mm](*map(torch.empty, shapes), out_val=torch.empty(2, 4))
    return whole == private.flop_registry[torch.ops.aten.mm].__wrapped__(*shapes, out_shape=(2, 4)) == 2 * 2 * 3 * 4


def _fake_tensors() -> bool:
    with private.FakeTensorMode():
        x = torch.ones(1 << 20, 1 << 20, requires_grad=True)
        (x * 2).sum().backward()
    return isinstance(x, private.FakeTensor) and x.grad is not None and x.grad.shape == x.shape


def _allocator_events() -> bool:
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile, torch.profiler.record_function("here"):
        torch.empty(1024)
    (start, end), *_ = private.ranges(profile, "here")
    inside = {size: time for time, size in private.allocations(profile) if start <= time <= end}
    return {4096, -4096} <= set(inside) and private.op_at(profile, inside[4096]) == "aten.empty"


def self_test() -> list[tuple[str, bool, str]]:
    """Try each symbol; return (symbol, works, what it is for)."""
    tests: list[tuple[str, Callable[[], bool], str]] = [
        ("weakref to UntypedStorage, UntypedStorage._cdata", _storage_finaliser, "when a storage is freed"),
        ("_C._autograd._get_sequence_nr, Node._sequence_nr", _sequence_numbers, "the module of a backward's bytes"),
        ("_C._current_graph_task_id, _current_autograd_node", _graph_task, "telling backward from forward"),
        ("Node._raw_saved_*, SavedTensor.data, Node._saved_other", _saved_by_nodes, "which bytes are activations"),
        ("saved_tensors_hooks.__enter__, _recomputation_hook", _recomputation, "what a checkpoint saves"),
        ("profiler.kineto_results.experimental_event_tree", _allocator_events, "the CPU allocator's own peak"),
        ("_python_dispatch._get_current_dispatch_mode_stack", _modes_in_force, "work on other threads"),
        ("Node.metadata", _node_metadata, "the module of a backward's bytes whose forward ran on another thread"),
        ("torch.utils.flop_counter.flop_registry", _flop_formulas, "FLOPs of matrix products and attention"),
        ("_subclasses.fake_tensor.FakeTensorMode", _fake_tensors, "steps without memory, in a method's contract test"),
    ]
    results = []
    for symbol, test, purpose in tests:
        try:
            works = test()
        except Exception:
            works = False
        results.append((symbol, works, purpose))
    return results
