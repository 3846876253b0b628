"""What the device's allocator hands out that no tensor has: by op, and a second opinion on the peak itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class WorkspaceMode(TorchDispatchMode):
    """Reads the allocator around every op: what it took and gave back inside, and what it kept beyond its outputs.

    ``within`` has the most bytes an op of each name held inside beyond what it found and left; ``kept`` what stayed
    allocated after it and is no output (cuBLAS's workspace stays with the first product). ``peak_op`` is the op in
    which the allocator's peak lies, ``peak_within_bytes`` what it held inside there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.within: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.peak_op, self.peak_bytes, self.peak_within_bytes = "", 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        known = {_storage(tensor) for tensor in _cuda_tensors((args, kwargs or {}))}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()["requested_bytes.all.current"]
        result = func(*args, **(kwargs or {}))
        stats = torch.cuda.memory_stats()
        after, peak = stats["requested_bytes.all.current"], stats["requested_bytes.all.peak"]
        made = {_storage(t): t.untyped_storage().nbytes() for t in _cuda_tensors(result) if _storage(t) not in known}
        name = str(func).removesuffix(".default")
        within = max(0, peak - max(before, after))
        self.within[name] = max(self.within[name], within)
        if kept := after - before - sum(made.values()):
            self.kept[name] += kept
        if peak > self.peak_bytes:
            self.peak_op, self.peak_bytes, self.peak_within_bytes = name, peak, within
        return result

    def largest(self, most: int = 5) -> dict[str, int]:
        """Return the ops that held the most inside, largest first."""
        return {name: size for name, size in self.within.most_common(most) if size}


def _cuda_tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor) and leaf.is_cuda]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def replayed_peak(events: Sequence[Mapping[str, Any]], live_bytes: int) -> int:
    """Return the most bytes asked for at a time, from an allocator's history; ``live_bytes`` were there before it."""
    live = peak = live_bytes
    for event in events:
        if event["action"] == "alloc":
            live += event["size"]
            peak = max(peak, live)
        elif event["action"] == "free_completed":
            live -= event["size"]
    return peak


def witness(step: Callable[[], None]) -> tuple[int, int]:
    """Run ``step`` while torch records its allocator's history.

    Return the peak of the bytes asked for, as the history gives it when replayed, and as the allocator's statistics do.
    """
    torch.cuda.synchronize()
    live = torch.cuda.memory_stats()["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.memory._record_memory_history(max_entries=2_000_000, context=None)
    try:
        step()
        torch.cuda.synchronize()
        counted = torch.cuda.memory_stats()["requested_bytes.all.peak"]
        events = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    return replayed_peak(events, live), counted
