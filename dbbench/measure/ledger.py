"""The memory ledger: what every live byte of a training step is for.

Open it before the network is built, declare the network and its optimizers, mark the steps:

    with Ledger() as ledger:
        model, optimizer = make()
        ledger.watch(model, lambda: [optimizer])
        with ledger.step(0):
            train_once()
    ledger.account().split

The recorder decides nothing; roles are given afterwards (`dbbench.measure.account`).
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from dbbench.measure import account as accounts
from dbbench.measure.identity import Identities, note
from dbbench.measure.recorder import Recorder
from dbbench.results.trace import Trace, Window


def _none() -> Sequence[Any]:
    return ()


class Ledger:
    """Records between ``__enter__`` and ``__exit__``; ``device_type`` is the device whose bytes count."""

    def __init__(self, device_type: str = "cpu") -> None:
        self._identities = Identities()
        self._recorder = Recorder(device_type, self._boundary)
        self.flops: list[tuple[Window, Counter[str]]] = []

    @property
    def trace(self) -> Trace:
        return self._recorder.trace

    @property
    def uncounted(self) -> dict[str, int]:
        """Ops with neither a FLOP formula nor a place among the free ones (calls by name), predictions left out."""
        return dict(self._recorder.flops.uncounted)

    def __enter__(self) -> Self:
        self._recorder.open()
        return self

    def __exit__(self, *details: object) -> None:
        self._identities.take(self._recorder)
        self._identities.close()
        self._recorder.close()

    def watch(
        self,
        model: nn.Module,
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]] = _none,
        others: Callable[[], Iterable[tuple[str, str, Tensor]]] = _none,
    ) -> None:
        """Declare what the bytes belong to; the callables are asked again at every phase boundary."""
        self._identities.watch(self._recorder, model, optimizers, others)

    def declare(self, role: str, name: str, tensor: Tensor) -> None:
        """Give one tensor's storage a role: ``inputs``, ``ema``, ``other``…"""
        note(self._recorder, tensor, role, name)

    @contextmanager
    def step(self, step: int, block: int = 0, kind: str = "step") -> Iterator[None]:
        """Measure what runs inside as one training step, or with ``kind='inference'`` as a prediction.

        Python's cycle collector rests meanwhile, so that what dies in a cycle dies at the same place every time.
        """
        recorder = self._recorder
        recorder.begin_steps()
        recorder.settle()
        gc.collect()
        collecting = gc.isenabled()
        gc.disable()
        recorder.flops.take()
        uncounted = Counter(recorder.flops.uncounted)
        window = Window(kind, step, block, len(self.trace.event_op))
        try:
            yield
        finally:
            recorder.settle()
            window.end = len(self.trace.event_op)
            self.trace.windows.append(window)
            self.flops.append((window, recorder.flops.take()))
            if kind != "step":
                recorder.flops.uncounted = uncounted
            if collecting:
                gc.enable()

    def account(self) -> accounts.Account:
        """Return the figures; the ledger may still be open."""
        return accounts.account(self.trace)

    def timeline(self) -> Any:
        """Return the classified events of the traced steps as a data frame."""
        return accounts.timeline(self.trace)

    def _boundary(self) -> None:
        self._identities.take(self._recorder)
        for number in [n for n, holder in self.trace.outlived.items() if holder is None]:
            known = number in self.trace.identity or number in self.trace.saved
            if not known and self._recorder.is_alive(number):
                self.trace.outlived[number] = self._holder(number)

    def _holder(self, number: int) -> str:
        """Name the local variable that holds a storage, looking outward through the running functions."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if not frame.f_globals.get("__name__", "").startswith("dbbench.measure."):
                for name, value in _locals(frame):
                    items = value if isinstance(value, (tuple, list)) else (value,)
                    if any(isinstance(i, Tensor) and self._recorder.number_of(i) == number for i in items):
                        return f"local '{name}' in {frame.f_code.co_qualname}"
            frame = frame.f_back
        return "(no local variable)"


def _locals(frame: FrameType) -> list[tuple[str, Any]]:
    """Return a function's variables without leaving it a copy: before Python 3.13 a frame keeps the one it is asked
    for, and with it every tensor that the function lets go of afterwards."""
    found = frame.f_locals
    items = list(found.items())
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        found.clear()
    return items
