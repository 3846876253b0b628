"""Notices what was made where the ledger could not see: on a thread that it does not follow, or before it opened.

The evidence is autograd's: a node keeps a tensor that no op was ever seen to make. Two cases show it as they happen, at
the cost of one look-up an argument: an op that is seen takes part in a graph whose earlier nodes were not, or a
backward uses a kept tensor of unknown origin. Then the graph behind is searched once, and all that it keeps and nobody
knows gets the role ``unseen``: late, but with its bytes.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dbbench.measure import private

if TYPE_CHECKING:
    from dbbench.measure.recorder import Recorder

#: Left on a node whose graph has been searched.
_SEARCHED = "dbbench.searched"


class Unseen:
    """Looks for kept tensors of unknown origin; one for all threads of a ledger."""

    def __init__(self, known: dict[int, int]) -> None:
        self._known = known  # storage address -> number
        self._innocent: dict[int, weakref.ref[Any]] = {}  # not ours to count, by address

    def look_at(self, recorder: Recorder, args: tuple[Any, ...]) -> None:
        """Look at what an op of a backward is given."""
        known, innocent = self._known, self._innocent
        for arg in args:
            if isinstance(arg, Tensor):
                try:
                    address = arg.untyped_storage()._cdata
                except (NotImplementedError, RuntimeError):  # sparse, or a functional transform's
                    continue
                if address not in known and address not in innocent:
                    self._suspect(recorder, arg, address)

    def note(self, recorder: Recorder, kept: Tensor) -> None:
        """Hear that a node that was seen keeps ``kept``, which is not known.

        Data that was there before is a leaf; what has a node of its own was made by one that nobody saw.
        """
        if kept.grad_fn is None or not recorder.counts(kept):
            for storage, _ in private.storages(kept):
                if storage._cdata not in self._innocent:
                    self._clear(storage)
            return
        recorder.take_unseen(kept, f"kept by autograd, made by {_op_of(kept.grad_fn)}")
        self._search(recorder, kept.grad_fn)

    def _suspect(self, recorder: Recorder, arg: Tensor, address: int) -> None:
        node = private.current_node()
        if node is not None and recorder.counts(arg):
            kept = (item for item in private.saved_by(node) if isinstance(item, Tensor))
            if any(address == storage._cdata for item in kept for storage, _ in private.storages(item)):
                self._search(recorder, node)
        if address not in self._known:
            self._clear(arg.untyped_storage())

    def _clear(self, storage: Any) -> None:
        address, innocent = storage._cdata, self._innocent
        innocent[address] = weakref.ref(storage, lambda _: innocent.pop(address, None))

    def _search(self, recorder: Recorder, root: Any) -> None:
        """Take in all that the graph behind ``root`` keeps and nobody knows."""
        pending = [root]
        while pending:
            node = pending.pop()
            if node is None or private.is_leaf_node(node) or _SEARCHED in node.metadata:
                continue
            node.metadata[_SEARCHED] = True
            for kept in private.saved_by(node):
                for item in kept if isinstance(kept, (tuple, list)) else (kept,):
                    if isinstance(item, Tensor) and not self._is_innocent(item):
                        recorder.take_unseen(item, f"kept by autograd for {_op_of(node)}")
            pending.extend(following for following, _ in node.next_functions)

    def _is_innocent(self, tensor: Tensor) -> bool:
        return all(storage._cdata in self._innocent for storage, _ in private.storages(tensor))


def _op_of(node: Any) -> str:
    name: str = node.name()
    return name.rstrip("0123456789").removesuffix("Backward")
