"""Every private symbol of torch that the ledger rests on, in one place.

All of them were read in torch 2.11 to 2.13. ``dbbench doctor`` tries each (`dbbench.measure.self_test`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils import checkpoint as torch_checkpoint
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    is_traceable_wrapper_subclass,
)
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
_out_of_sight: dict[type, bool] = {}


def storage_key(tensor: Tensor) -> int:
    """Return the address of ``tensor``'s storage: unique among the living (``UntypedStorage._cdata``)."""
    return tensor.untyped_storage()._cdata


def clear_cublas_workspaces() -> None:
    """Give back what cuBLAS keeps of the caching allocator for its products; nothing where torch has no such call."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()


def next_sequence_number() -> int:
    """Return the number that the next node of the autograd graph will get."""
    return torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]


def node_sequence_number(node: Any) -> int:
    """Return the number that ``node`` got when the forward made it, from its thread's own count."""
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


def is_leaf_node(node: Any) -> bool:
    """Tell whether ``node`` is a leaf's, which only takes gradients in and keeps nothing."""
    return node_sequence_number(node) >= _LEAF


def is_composite(func: Any) -> bool:
    """Tell whether the op ``func`` is made of others, and has nothing of its own to run."""
    has_kernel, name = torch._C._dispatch_has_kernel_for_dispatch_key, func.name()
    if not torch._C._dispatch_has_kernel(name):  # of Python alone, such as sizes that a subclass is asked for
        return False
    return has_kernel(name, "CompositeImplicitAutograd") and not (has_kernel(name, "CPU") or has_kernel(name, "CUDA"))


def modes_in_force() -> list[TorchDispatchMode]:
    """Return the dispatch modes that the thread that runs is under, the innermost last."""
    return _get_current_dispatch_mode_stack()


def nodes_behind(root: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield ``root`` and every node of the graph behind it that is not in ``seen``, which takes them in.

    A leaf's node, which only takes gradients in and keeps nothing, is left out.
    """
    pending = [root]
    while pending:
        node = pending.pop()
        if node is not None and node not in seen and not is_leaf_node(node):
            seen.add(node)  # itself: each thread numbers its nodes from 0
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


def keeps_out_of_sight(node: Any) -> bool:
    """Tell whether ``node`` is no op's of torch's own, but an ``autograd.Function`` or a graph of TorchScript's."""
    kind = type(node)
    known = _out_of_sight.get(kind)
    if known is None:
        named = kind.__name__ == "CppFunction"
        known = _out_of_sight[kind] = named or issubclass(kind, torch.autograd.function.BackwardCFunction)
    return known


def is_scripted_graph(node: Any) -> bool:
    """Tell whether ``node`` is the backward of a graph that TorchScript differentiated: what it keeps is in C++."""
    return bool(node.name().endswith("DifferentiableGraphBackward"))


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


class _Table:
    """The parameters or buffers of a scripted module, which are no dict."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._wrapped.keys()))

    def items(self) -> Iterator[tuple[str, Tensor]]:
        return iter(list(self._wrapped.items()))

    def get(self, key: str) -> Tensor | None:
        return dict(self._wrapped.items()).get(key)


def table(module: torch.nn.Module, name: str) -> Any:
    """Return the module's own ``_parameters`` or ``_buffers``, by key, as it is at any time."""
    found = getattr(module, name)
    return found if isinstance(found, dict) else _Table(found)


def ddp_bucket_bytes(module: torch.nn.parallel.DistributedDataParallel) -> set[int]:
    """Return the bytes of each gradient bucket, those of after the first backward included once they are made."""
    told = module._get_ddp_logging_data()
    sizes = f"{told.get('bucket_sizes', '')},{told.get('rebuilt_bucket_sizes', '')}".split(",")
    return {int(size) for size in sizes if size.strip().isdigit()}


def fsdp_groups(module: torch.nn.Module) -> list[Any] | None:
    """Return the parameter groups that ``fully_shard`` has made for ``module``, None where it was not applied."""
    told = getattr(type(module), "_get_fsdp_state", None)
    if told is None:
        return None
    state = told(module)
    groups = getattr(state, "_fsdp_param_groups", None)  # one group, in a field of its own, before torch 2.13
    return [group for group in groups or [getattr(state, "_fsdp_param_group", None)] if group is not None]


def fsdp_allocators(group: Any) -> list[tuple[str, Any]]:
    """Return (what for, object whose ``allocate`` gives its buffers) of an FSDP2 parameter group."""
    return [("all-gather", group._all_gather_comm), ("reduce-scatter", group._reduce_scatter_comm)]


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
