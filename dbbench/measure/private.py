"""Every private symbol of torch that the ledger rests on, in one place, and a test of each.

All of them were read in torch 2.11 to 2.13. ``dbbench doctor`` runs `self_test`; if a release changes one, the row
says which figure is lost, instead of a ledger that is quietly wrong.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint as torch_checkpoint
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils.flop_counter import flop_registry

__all__ = [
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
    "flop_registry",
]

#: Called for every op, so bound once: the number of the backward pass that runs in this thread (-1 for none), and the
#: autograd node that is being evaluated (None for none).
graph_task = torch._C._current_graph_task_id
current_node = torch._C._current_autograd_node

#: The device that a context such as ``with torch.device("meta")`` gives; the set of keys that route a tensor's ops.
default_device = torch._C._get_default_device
dispatch_keys = torch._C._dispatch_key_set

_MOSTLY_PLAIN = (Tensor, torch.nn.Parameter, FakeTensor)
_LEAF = 1 << 62  # all nodes that accumulate a gradient have the largest sequence number
_saving_attributes: dict[type, tuple[str, ...]] = {}


def storage_key(tensor: Tensor) -> int:
    """Return the address of ``tensor``'s storage: unique among the living (``UntypedStorage._cdata``)."""
    return tensor.untyped_storage()._cdata


def next_sequence_number() -> int:
    """Return the number that the next node of the autograd graph will get."""
    return torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]


def node_sequence_number(node: Any) -> int:
    """Return the number that ``node`` got when the forward made it."""
    return node._sequence_nr()


def has_no_memory(tensor: Tensor) -> bool:
    """Tell whether ``tensor`` is a zero that forward-mode derivatives stand in, with a size and no memory."""
    return tensor._is_zerotensor()


def fake_of(plain: Tensor, device: torch.device, attributes: dict[str, Any]) -> Tensor:
    """Return the fake tensor on ``device`` over ``plain``, a meta tensor, with the ``attributes`` of another fake one.

    What ``FakeTensor.__new__`` does, without finding out again what the other one's attributes say.
    """
    fake = Tensor._make_subclass(FakeTensor, plain, False, dispatch_device=True, device_for_backend_keys=device)
    torch._C._set_throw_on_mutable_data_ptr(fake)
    fake.__dict__.update(attributes)
    return fake


def in_fake_mode() -> bool:
    """Tell whether tensors made now are fake."""
    return torch._guards.detect_fake_mode() is not None


def same_kind(tensor: Tensor, other: Tensor) -> bool:
    """Tell whether ``other`` can become the data of ``tensor``."""
    return torch._has_compatible_shallow_copy_type(tensor, other)


def nodes_behind(root: Any, seen: set[int]) -> Iterator[Any]:
    """Yield ``root`` and every node of the graph behind it whose number is not in ``seen``, which takes them in.

    A leaf's node, which only takes gradients in and keeps nothing, is left out.
    """
    pending = [root]
    while pending:
        node = pending.pop()
        number = _LEAF if node is None else node_sequence_number(node)
        if number < _LEAF and number not in seen:
            seen.add(number)
            yield node
            pending.extend(following for following, _ in node.next_functions)


def node_of(tensor: Tensor) -> Any:
    """Return the autograd node that made ``tensor``, None for a leaf."""
    try:
        return tensor.grad_fn
    except RuntimeError:  # a view that was changed in place where autograd forbids it: its use will raise
        return None


def saved_by(node: Any) -> Iterator[Any]:
    """Yield what ``node`` keeps for its backward: tensors, or whatever a saved-tensor hook put in their place.

    Nothing is unpacked. A node that has released what it kept yields nothing.
    """
    kind = type(node)
    names = _saving_attributes.get(kind)
    if names is None:
        names = _saving_attributes[kind] = tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))
    for name in names:
        try:
            kept = getattr(node, name)
            for one in kept if isinstance(kept, (tuple, list)) else (kept,):
                if one is not None:
                    yield one.data
        except RuntimeError:  # released
            return


def kept_number(node: Any) -> Tensor | None:
    """Return the one-element tensor in which a product or quotient keeps a Python number, None where it keeps none."""
    number = getattr(node, "_saved_other", None)
    return number if isinstance(number, Tensor) and number.dim() == 0 else None


def is_custom_function(node: Any) -> bool:
    """Tell whether ``node`` belongs to an ``autograd.Function`` written in Python."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the dense tensors that hold ``tensor``'s bytes: itself, a sparse one's parts, a wrapper's insides.

    A subclass with a dispatch of its own that does not tell its insides (``__tensor_flatten__``) yields nothing, and
    neither does a lazy module's parameter that has no shape yet.
    """
    if torch.nn.parameter.is_lazy(tensor):
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        yield from plain_tensors(torch._C._functorch.get_unwrapped(tensor))
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            inner = getattr(tensor, name)
            if isinstance(inner, Tensor):
                yield from plain_tensors(inner)
    elif tensor.layout is torch.strided and not _dispatches_itself(type(tensor)):
        yield tensor


def storages(tensor: Tensor) -> list[tuple[Any, Tensor]]:
    """Return (storage, dense tensor on it) of all that `plain_tensors` yields."""
    if type(tensor) in _MOSTLY_PLAIN:
        try:
            return [(tensor.untyped_storage(), tensor)]
        except NotImplementedError:  # sparse, or wrapped by a functional transform
            pass
    return [(plain.untyped_storage(), plain) for plain in plain_tensors(tensor)]


def _dispatches_itself(kind: type) -> bool:
    return desugars(kind) and not issubclass(kind, FakeTensor)


def desugars(kind: type) -> bool:
    """Tell whether tensors of this class have a dispatch of their own, under which other ops run."""
    handler = getattr(kind, "__torch_dispatch__", None)
    return handler is not None and handler is not torch._C._disabled_torch_dispatch_impl


def first_of_its_hooks(parameter: Tensor, handle: Any) -> None:
    """Let the post-accumulate hook behind ``handle`` run before ``parameter``'s others.

    Autograd goes by the order in which a plain dict got its keys, whatever an ordered one has been told since.
    """
    hooks: Any = parameter._post_accumulate_grad_hooks  # type: ignore[attr-defined]
    ours, others = hooks.pop(handle.id), dict(hooks)
    hooks.clear()
    hooks[handle.id] = ours
    hooks.update(others)


def is_compiled(module: torch.nn.Module) -> bool:
    """Tell whether calling ``module`` runs what ``torch.compile`` made of it."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def is_recomputation(hooks: object) -> bool:
    """Tell whether ``hooks`` are those under which a non-reentrant checkpoint runs its forward again."""
    return isinstance(hooks, torch_checkpoint._recomputation_hook)


def is_reentrant_recomputation(node: Any) -> bool:
    """Tell whether ``node`` is a reentrant checkpoint's, whose backward runs the forward with gradients on."""
    return node is not None and torch.is_grad_enabled() and node.name() == "CheckpointFunctionBackward"


def allocations(profile: Any) -> list[tuple[int, int]]:
    """Return (time in ns, ± bytes) of the CPU allocator's events in a finished profile with ``profile_memory``."""
    found = []
    for event in events(profile):
        if event.tag == torch._C._profiler._EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.alloc_size))
    return sorted(found, key=lambda item: item[0])


def op_at(profile: Any, time: int) -> str | None:
    """Return the op that was running at ``time`` (ns) of a finished profile, the outermost one; None between ops."""
    running = [e for e in events(profile) if e.name.startswith("aten::") and e.start_time_ns <= time <= e.end_time_ns]
    return min(running, key=lambda event: event.start_time_ns).name.replace("::", ".") if running else None


def ranges(profile: Any, name: str) -> list[tuple[int, int]]:
    """Return (start, end) in ns of each ``record_function(name)`` in a finished profile."""
    return sorted((e.start_time_ns, e.end_time_ns) for e in events(profile) if e.name == name)


def events(profile: Any) -> Iterator[Any]:
    """Yield every event of a finished profile, an op's own children included, in no particular order."""
    pending = list(profile.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        yield event
        pending.extend(event.children)


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
    before = next_sequence_number()
    y = x * 2
    return node_sequence_number(y.grad_fn) == before and next_sequence_number() == before + 1


def _saved_by_nodes() -> bool:
    x = torch.ones(2, requires_grad=True)
    y, z = (x * 2.0).exp(), x * 3.0
    number = kept_number(z.grad_fn)
    (kept,) = saved_by(y.grad_fn)
    return storage_key(kept) == storage_key(y) and number is not None and number.item() == 3.0


def _graph_task() -> bool:
    seen: list[tuple[int, Any]] = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: seen.append((graph_task(), current_node())))
    y.sum().backward()
    return graph_task() == -1 and seen[0][0] != -1


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
    return any(is_recomputation(hooks) for hooks in entered)


def _flop_formulas() -> bool:
    shapes = ((2, 3), (3, 4))
    whole = flop_registry[torch.ops.aten.mm](*map(torch.empty, shapes), out_val=torch.empty(2, 4))
    return whole == flop_registry[torch.ops.aten.mm].__wrapped__(*shapes, out_shape=(2, 4)) == 2 * 2 * 3 * 4


def _fake_tensors() -> bool:
    with FakeTensorMode():
        x = torch.ones(1 << 20, 1 << 20, requires_grad=True)
        (x * 2).sum().backward()
    return isinstance(x, FakeTensor) and x.grad is not None and x.grad.shape == x.shape


def _allocator_events() -> bool:
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile, torch.profiler.record_function("here"):
        torch.empty(1024)
    (start, end), *_ = ranges(profile, "here")
    inside = {size: time for time, size in allocations(profile) if start <= time <= end}
    return {4096, -4096} <= set(inside) and op_at(profile, inside[4096]) == "aten.empty"


def self_test() -> list[tuple[str, bool, str]]:
    """Try each symbol; return (symbol, works, what it is for)."""
    tests: list[tuple[str, Callable[[], bool], str]] = [
        ("weakref to UntypedStorage, UntypedStorage._cdata", _storage_finaliser, "when a storage is freed"),
        ("_C._autograd._get_sequence_nr, Node._sequence_nr", _sequence_numbers, "the module of a backward's bytes"),
        ("_C._current_graph_task_id, _current_autograd_node", _graph_task, "telling backward from forward"),
        ("Node._raw_saved_*, SavedTensor.data, Node._saved_other", _saved_by_nodes, "which bytes are activations"),
        ("saved_tensors_hooks.__enter__, _recomputation_hook", _recomputation, "what a checkpoint saves"),
        ("profiler.kineto_results.experimental_event_tree", _allocator_events, "the CPU allocator's own peak"),
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
