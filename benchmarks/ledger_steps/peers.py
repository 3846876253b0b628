"""Other people's accounts of the same steps: torch's saved-tensor hooks for activations, MemTracker for totals.

A peer sees less than the allocator does: hooks see no tensor that a checkpoint or other hooks keep in their own way,
and MemTracker is told of what exists before it opens and looks for nothing else.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.ledger_steps.catalogue import Kind, Setup
from benchmarks.ledger_steps.truth import tell
from dbbench.measure.account import Account
from dbbench.measure.ledger import BareLedger


class SavedBytes:
    """The bytes of distinct storages that autograd keeps and that are no parameter, buffer or declared tensor.

    They count from the moment one is saved until the storage goes. ``peak_bytes`` is the most there were at once.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.bytes = self.peak_bytes = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def hooks(self) -> saved_tensors_hooks:
        """Return the hooks to hold over a step."""
        return saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided and not tensor._is_zerotensor():  # which has a size and no memory
            self._count(tensor.untyped_storage())
        # an output kept as it is would hold its own node, and the node it
        return tensor.detach() if tensor.requires_grad and not tensor.is_leaf else tensor

    def _count(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._alive or address in self._known():
            return

        def gone(_: Any) -> None:
            del self._alive[address]
            self.bytes -= size

        self._alive[address] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _known(self) -> set[int]:
        tensors = [tensor for _, _, tensor in self.setup.declared()]
        for model in self.setup.models.values():
            # while torch.func lends a module other weights, those are no parameters
            tensors += [p for p in model.parameters() if isinstance(p, nn.Parameter)] + list(model.buffers())
        return {t.untyped_storage()._cdata for t in tensors if t.layout is torch.strided}


@contextmanager
def _warm(kind: Kind) -> Iterator[Setup]:
    """Build ``kind``, warm it up, and swallow the error with which it is to end."""
    torch.manual_seed(0)
    setup = kind.build()
    for _ in range(kind.warm_steps):
        setup.step()
    gc.collect()
    try:
        yield setup
    except Exception as error:
        if kind.raises is None or not isinstance(error, kind.raises):
            raise


def saved_peak_bytes(kind: Kind) -> int:
    """Return the most that torch's own hooks see saved during the measured step of ``kind``."""
    with _warm(kind) as setup:
        saved = SavedBytes(setup)
        with saved.hooks():
            setup.step()
    return saved.peak_bytes


def mem_tracker_peak_bytes(kind: Kind) -> int:
    """Return MemTracker's peak of the measured step of ``kind``; raises what MemTracker does where it cannot."""
    from torch.distributed._tools.mem_tracker import MemTracker

    with _warm(kind) as setup:
        tracker = MemTracker()
        tracker.track_external(
            *setup.models.values(), *setup.optimizers, *[tensor for _, _, tensor in setup.declared()]
        )
        with tracker:
            setup.step()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def ledger_of_the_declared(kind: Kind) -> Account:
    """Return the ledger's account when it is told what MemTracker is told, and looks for nothing else."""
    with _warm(kind) as setup, BareLedger() as ledger:
        tell(ledger, setup)
        with ledger.step(0):
            setup.step()
    return ledger.account()
