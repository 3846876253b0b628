"""The memory ledger: what every live byte of a training step is for.

`BareLedger` gives the figures; `dbbench.Ledger` adds tables, plots and differences. A cell opens it before its network
is built, declares the network and its optimizers, and marks the steps:

    with BareLedger() as ledger:
        model, optimizer = make()
        ledger.watch(model, lambda: [optimizer])
        with ledger.step(0):
            train_once()
    ledger.account().split

The recorder decides nothing; roles are given afterwards (`dbbench.measure.account`).
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dbbench.errors import BadInput, did_you_mean
from dbbench.measure import account as accounts
from dbbench.measure.census import existing, reachable, take_census
from dbbench.measure.flops import UncountedOps
from dbbench.measure.holders import NOBODY, Variable, find_holders
from dbbench.measure.identity import Identities, note
from dbbench.measure.optimizers import tensors_in
from dbbench.measure.recorder import Recorder
from dbbench.measure.several_steps import take_apart
from dbbench.phases import phase
from dbbench.results.record import Held
from dbbench.results.roles import IDENTITY_ROLES
from dbbench.results.trace import Trace, Window

#: What a ledger takes in of what exists already as it opens.
Census = bool | Literal["variables"] | Callable[[Tensor], bool]


def _none() -> Sequence[Any]:
    return ()


class BareLedger:
    """Records between ``__enter__`` and ``__exit__``.

    ``device_type`` is the device whose bytes count; ``fake`` says that fake tensors stand for them. ``census`` takes in
    what exists already when it opens: whatever Python knows of, of that the tensors for which it is true, or what
    ``"variables"`` lead to. ``strict`` raises `UncountedOps` at the end of a step with an op whose FLOPs it cannot
    count. Before each step Python's cycle collector runs, in full with ``collect``, else over what is young: what died
    in a cycle long ago may then still be there, and counts. A ledger opened without any `step` inside treats its whole
    body as step 0.
    """

    def __init__(
        self,
        device_type: str = "cpu",
        *,
        fake: bool = False,
        census: Census = False,
        strict: bool = False,
        collect: bool = True,
    ) -> None:
        self._recorder = Recorder(device_type, self._boundary, fake)
        self._identities = Identities(self._recorder)
        self._census, self._strict, self._collect = census, strict, collect
        self._census_complete = True
        self._thread = 0
        self._steps_begun = 0
        self._holders: list[Variable] = []
        self._named: dict[int, int] = {}  # storage -> steps begun when its holder was named
        self.flops: list[tuple[Window, Counter[str]]] = []
        self.masked_flops: list[tuple[Window, int]] = []  # those of them that a causal kernel may leave out
        self.ended_early: str | None = None
        self.several_steps = ""  # what is to be said of a body that marks no step and holds several
        self._uncounted: Counter[str] = Counter()
        self._modules_before: list[nn.Module] = []

    @property
    def trace(self) -> Trace:
        return self._recorder.trace

    @property
    def uncounted(self) -> dict[str, int]:
        """Ops of the training steps with neither a FLOP formula nor a place among the free ones: calls by name."""
        return dict(self._uncounted)

    @property
    def unmeasured_work(self) -> dict[str, int]:
        """Work that left for where nothing of it is seen: child processes, replays of CUDA graphs; times by kind."""
        return dict(self.trace.left)

    @property
    def attention(self) -> str:
        """The families of attention kernel that were called, such as ``flash``; '' for none."""
        return ", ".join(sorted(self._recorder.flops.attention))

    @property
    def live_bytes(self) -> int:
        """The bytes alive at this moment, as far as the ledger sees them."""
        return self._recorder.live_bytes

    def __enter__(self) -> Self:
        self._recorder.open()
        self._thread = threading.get_ident()
        if self._census:
            with self._recorder.aside(), collector_at_rest():
                if self._collect and self._census != "variables":
                    gc.collect()
                self._take_census()
        return self

    def _take_census(self) -> None:
        if self._census == "variables":
            tensors, self._modules_before, self._census_complete = reachable(sys._getframe(2), self._declared())
        else:
            tensors, self._modules_before = existing()
        if callable(self._census):
            counts = self._census
            tensors = [tensor for tensor in tensors if counts(tensor)]
            self._modules_before = [m for m in self._modules_before if all(map(counts, m.parameters()))]
        take_census(self._recorder, tensors)

    def _declared(self) -> Iterable[Any]:
        """Return the models and optimizers that are to be declared as soon as the census is taken."""
        return ()

    def __exit__(self, kind: Any, error: BaseException | None, *details: object) -> None:
        unmarked = not self.trace.windows
        try:
            if unmarked:
                gc.collect(2 if self._collect else 1)  # what died in a cycle is not kept
                self._recorder.clock.close_marks(0)
                self._recorder.settle()
                self._end_unmarked(error)
            with self._recorder.aside():
                self._identities.take_again()
        finally:
            self._identities.close()
            self._holders.clear()
            self._recorder.close()
        if error is None and unmarked:
            self._check_strict()

    def watch(
        self,
        model: nn.Module | Mapping[str, nn.Module],
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]] = _none,
        others: Callable[[], Iterable[tuple[str, str, Tensor]]] = _none,
    ) -> None:
        """Declare what the bytes belong to; the callables are asked again at every phase boundary.

        Of several models, each one's module paths begin with its name. Raises BadInput for a compiled model.
        """
        with self._recorder.aside(), collector_at_rest():
            self._identities.watch({"": model} if isinstance(model, nn.Module) else model, optimizers, others)

    def declare(self, role: str, name: str, tensors: Any) -> None:
        """Give the storages of ``tensors``, one or a nest of them, a role: ``inputs``, ``ema``, ``other``…"""
        if role not in IDENTITY_ROLES:
            raise BadInput(
                f"role '{role}': a storage cannot be declared to be that{did_you_mean(role, IDENTITY_ROLES)}"
            )
        with self._recorder.aside():
            for path, tensor in tensors_in(tensors):
                note(self._recorder, tensor, role, name + path)

    def search(self, value: Any, name: str, place: str) -> None:
        """Look for holders in ``value`` too, as if it were the variable ``name`` of the function ``place``.

        A callable that is called from elsewhere keeps what it keeps on itself, where no running function leads.
        """
        self._holders.append(Variable("local", place, name, value))

    #: ``with ledger.phase("optimizer"): …`` says what cannot be inferred, such as an optimizer written by hand.
    phase = staticmethod(phase)

    @contextmanager
    def step(self, step: int | None = None, block: int = 0, kind: str = "step") -> Iterator[None]:
        """Measure what runs inside as one training step, or with ``kind='inference'`` as a prediction.

        Python's cycle collector rests meanwhile, so that what dies in a cycle dies at the same place every time.
        """
        number = sum(window.kind == "step" for window in self.trace.windows) if step is None else step
        recorder = self._recorder
        self._begin()
        depth = recorder.clock.depth
        gc.collect(2 if self._collect else 1)
        with collector_at_rest():
            recorder.flops.take()
            recorder.flops.uncounted.clear()  # of what ran between steps
            recorder.flops.masked = 0
            window, failure = Window(kind, number, block, len(self.trace.event_op)), None
            try:
                yield
            except BaseException as error:
                failure = error
                raise
            finally:
                recorder.clock.close_marks(depth)
                recorder.settle()
                self._windows_end(window, failure)
        self._check_strict()

    def _begin(self, just_declared: bool = False) -> None:
        """Leave set-up: a step begins."""
        self._recorder.clock.begin_steps()
        self._recorder.settle()
        if not just_declared:
            self._identities.refresh()
        self._name_survivors()
        self._steps_begun += 1

    def _windows_end(self, window: Window, error: BaseException | None) -> None:
        self.trace.windows.append(window)
        window.end = len(self.trace.event_op)
        self.flops.append((window, self._recorder.flops.take()))
        self.masked_flops.append((window, self._recorder.flops.masked))
        if window.kind == "step":
            self._uncounted += self._recorder.flops.uncounted
            self._name_survivors()
            self._name_again()
        if error is not None and self.ended_early is None:
            self.ended_early = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            seen = self.account()
            where = f"{seen.peak_phase} ({seen.peak_module or 'outside any module'}, {seen.peak_op or 'no op'})"
            error.add_note(f"dbbench ledger: until then the peak was {seen.peak_bytes:,} bytes, in {where}")

    def _end_unmarked(self, error: BaseException | None) -> None:
        """End a body that marked no step: it is one, or as many as its optimizers took."""
        cuts, self.several_steps = take_apart(self.trace, self._recorder.updates)
        counted, start, done, masked = self._recorder.flops, 0, Counter[str](), 0
        for number, cut in enumerate(cuts):
            window = Window("step", number, 0, start, cut.event)
            self.trace.windows.append(window)
            self.flops.append((window, cut.update.flops - done))
            self.masked_flops.append((window, cut.update.masked - masked))
            start, done, masked = cut.event, cut.update.flops, cut.update.masked
        counted.by_phase, counted.masked = counted.by_phase - done, counted.masked - masked
        self._windows_end(Window("step", len(cuts), 0, start), error)

    def _check_strict(self) -> None:
        if self._strict and self.uncounted:
            ops = ", ".join(f"{name} ({calls} calls)" for name, calls in sorted(self.uncounted.items()))
            raise UncountedOps(f"no FLOP formula, and on no list of free ops: {ops}")

    def account(self) -> accounts.Account:
        """Return the figures; the ledger may still be open."""
        return accounts.account(self.trace)

    @property
    def kept(self) -> list[Held]:
        """What the measured code made and, at this moment or as the ledger closed, still holds: by holder.

        Parameters, gradients, the optimizer's state, buffers, inputs and averages of the weights are not among it. A
        variable of the code that runs, such as a loss, is: leave the function, or delete it, before the ledger closes.
        """
        return accounts.kept_at_the_end(self.trace)

    @property
    def kept_bytes(self) -> int:
        """The bytes of `kept`: 0 where nothing leaks."""
        return self.account().kept_bytes

    def timeline(self) -> Any:
        """Return the classified events of the traced steps as a data frame."""
        return accounts.timeline(self.trace)

    # -- who holds what has outlived its phase ------------------------------------------------------------------

    def _boundary(self) -> None:
        self._identities.take_again()
        trace, unnamed = self.trace, self._recorder.unnamed
        self._find_holders(number for number in unnamed if number not in trace.identity and number not in trace.saved)
        unnamed.clear()

    def _name_survivors(self) -> None:
        """Name the holders of what autograd kept and did not let go of between steps: a graph that leaks."""
        trace = self.trace
        with self._recorder.aside():
            self._find_holders(
                number
                for number in self._recorder.alive()
                if number in trace.saved
                and number not in trace.identity
                and trace.outlived.get(number) in (None, NOBODY)
            )

    def _name_again(self) -> None:
        """Look once more for the holders of what came from before this step: the variable may hold its own by now."""
        old = [number for number, begun in self._named.items() if begun < self._steps_begun]
        names = {number: self.trace.outlived[number] for number in old}
        with self._recorder.aside():
            self._find_holders(number for number in old if number not in self.trace.identity)
        for number in old:
            del self._named[number]
            if self.trace.outlived[number] in (None, NOBODY):
                self.trace.outlived[number] = names[number]

    def _find_holders(self, numbers: Iterable[int]) -> None:
        wanted = self._recorder.addresses(numbers)
        if not wanted:
            return
        found = find_holders(wanted, self._innermost_frame(), self._holders)
        for number, size in wanted.values():
            if number not in found and self._identities.bucket_of(number, size):
                continue
            if number not in found and self._recorder.scripted:
                self.trace.saved[number] = "kept by a scripted graph"
            self.trace.outlived[number] = found.get(number, NOBODY)
            self._named[number] = self._steps_begun

    def _innermost_frame(self) -> FrameType | None:
        """Return the frame of the thread that trains; on CUDA a backward runs in others."""
        if threading.get_ident() == self._thread:
            return sys._getframe(1)
        return sys._current_frames().get(self._thread)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Keep Python's cycle collector from running.

    Nothing grows old while it rests, so what one stretch leaves in cycles is young when the next begins.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
