"""The truth about one kind of step: the CPU allocator's own events, op by op, beside the ledger's bytes.

A thin dispatch mode, entered after the ledger and therefore called before it, numbers every op and marks it in the
profiler's stream. So the allocator's live bytes are known at the end of every op (since before the model was built),
and what an op allocates and frees again within itself is known as that op's workspace. The statements checked:

1. at the end of every op the allocator and the ledger hold the same number of bytes (``detach`` aside, which takes
   none and which autograd calls in the midst of other ops);
2. the allocator's peak with every op's workspace taken out is the ledger's peak;
3. the allocator's peak is the ledger's bytes at the end of the op running then, brought back to that instant by what
   the op still made or had not yet let go, plus that op's workspace alive then.

A number of Python in an expression (``2.0 * x``) is a tensor of eight bytes that the caller of the op makes before
the dispatcher and drops after it, unless autograd keeps it: those that go with the call are its workspace as well.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType, _RecordFunctionFast
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type

from benchmarks.ledger_steps.catalogue import Kind, Setup
from dbbench.measure import private
from dbbench.measure.account import Account
from dbbench.measure.ledger import BareLedger

_STEP, _OP = "ledger_truth.step", "ledger_truth.op."


@dataclass(frozen=True)
class Op:
    """One dispatched op: when it ran (ns), and the ledger's live bytes when it ended."""

    name: str
    start: int
    end: int
    ledger_bytes: int


@dataclass(frozen=True)
class Loan:
    """A stretch of memory that the allocator handed out at ``made`` and got back at ``freed`` (ns; None: still out)."""

    bytes: int
    made: int
    freed: int | None


@dataclass(frozen=True)
class Difference:
    """An op at whose end the accounts differ: allocator minus ledger, and how much more than at the op before."""

    number: int
    op: str
    bytes: int
    grown: int


@dataclass
class Run:
    """What one run of a kind gave. Without a ledger, ``account`` is None; without the op mode, ``ops`` is 0: it counts
    those at whose end the accounts were compared."""

    allocator_peak_bytes: int
    outcome: list[Tensor]
    account: Account | None = None
    ops: int = 0
    differences: list[Difference] = field(default_factory=list)
    visible_peak_bytes: int = 0
    peak_op: str | None = None
    workspace_bytes: int = 0
    bytes_under_peak_op: int | None = None
    ledger: Any = None

    @property
    def ledger_peak_bytes(self) -> int:
        """The ledger's peak."""
        assert self.account is not None
        return self.account.peak_bytes

    @property
    def residue_bytes(self) -> int:
        """The allocator's peak minus the ledger's."""
        return self.allocator_peak_bytes - self.ledger_peak_bytes


def alone(kind: Kind) -> Run:
    """Run ``kind`` under the allocator's events only."""
    return _run(kind)


def under_idle_mode(kind: Kind) -> Run:
    """Run ``kind`` under the allocator's events and a dispatch mode that only passes each op on.

    With any mode in force torch takes other ways in places: the backward of indexing is out of place, and a Python
    number is made into a tensor once more. What a ledger changes beyond that is its own doing.
    """
    return _run(kind, mode=_IdleMode())


def watched(kind: Kind) -> Run:
    """Run ``kind`` under the allocator's events and the ledger."""
    return _run(kind, ledger=_ledger(kind))


def compared(kind: Kind) -> Run:
    """Run ``kind`` under both, and compare them at the end of every op."""
    ledger = _ledger(kind)
    return _run(kind, ledger=ledger, mode=_OpMarks(ledger))


def _ledger(kind: Kind) -> BareLedger:
    return BareLedger(census=kind.opens == "after")


def tell(ledger: Any, setup: Setup) -> None:
    """Declare to an open ledger all that ``setup`` knows."""
    optimizers = list(setup.optimizers)
    alone = len(setup.models) == 1
    models = {"" if alone else name: model for name, model in setup.models.items()}
    ledger.watch(models, lambda: optimizers, setup.declared)


class _IdleMode(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(is_traceable_wrapper_subclass_type(t) for t in types):
            return NotImplemented
        return func(*args, **(kwargs or {}))


class _OpMarks(TorchDispatchMode):
    """Numbers every op in the profiler's stream and asks the ledger for its bytes when the op ends."""

    def __init__(self, ledger: Any) -> None:
        super().__init__()
        self.ledger = ledger
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(is_traceable_wrapper_subclass_type(t) for t in types):
            return NotImplemented  # the ops inside the wrapper are the ones that allocate
        number = len(self.seen)
        self.seen.append((str(func), 0))
        with _RecordFunctionFast(f"{_OP}{number}"):
            try:
                return func(*args, **(kwargs or {}))
            finally:
                self.seen[number] = (str(func), self.ledger.live_bytes)


@contextmanager
def _resting_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _run(kind: Kind, *, ledger: BareLedger | None = None, mode: TorchDispatchMode | None = None) -> Run:
    gc.collect()
    gc.freeze()  # what exists already is no part of the run: not for the collector, nor for who walks its objects
    torch.manual_seed(0)
    opened: Any = ledger if ledger is not None else nullcontext()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        if kind.opens == "before":
            with opened:
                setup = kind.build()
                if ledger is not None:
                    tell(ledger, setup)
                _warm_up(kind, setup)
                _measured_step(kind, setup, ledger, mode)
        else:
            setup = kind.build()
            _warm_up(kind, setup)
            with opened:
                if ledger is not None:
                    tell(ledger, setup)
                _measured_step(kind, setup, ledger, mode)
    run = Run(0, setup.outcome(), ledger=ledger)
    if ledger is not None:
        run.account = ledger.account()
    _reconcile(kind, run, profile, mode if isinstance(mode, _OpMarks) else None)
    return run


def _warm_up(kind: Kind, setup: Setup) -> None:
    for _ in range(kind.warm_steps):
        setup.step()


def _measured_step(kind: Kind, setup: Setup, ledger: Any, mode: TorchDispatchMode | None) -> None:
    measured = ledger.step(0) if ledger is not None else nullcontext()
    raised = False
    with _resting_collector(), _RecordFunctionFast(_STEP):
        try:
            with measured, mode if mode is not None else nullcontext():
                setup.step()
        except Exception as error:
            if kind.raises is None or not isinstance(error, kind.raises):
                raise
            raised = True
    if kind.raises is not None and not raised:
        raise AssertionError(f"{kind.name} was to end with {kind.raises.__name__}")


def _reconcile(kind: Kind, run: Run, profile: Any, marks: _OpMarks | None) -> None:
    """Fill the allocator's side of ``run`` from a finished profile."""
    sizes: list[tuple[int, int, int]] = []  # time, ± bytes, address
    spans: dict[int, tuple[int, int]] = {}
    step = (0, 0)
    for event in private.events(profile):
        if event.tag == _EventType.Allocation:
            sizes.append((event.start_time_ns, event.extra_fields.alloc_size, event.extra_fields.ptr))
        elif event.name == _STEP:
            step = (event.start_time_ns, event.end_time_ns)
        elif event.name.startswith(_OP):
            spans[int(event.name.removeprefix(_OP))] = (event.start_time_ns, event.end_time_ns)
    sizes.sort(key=lambda item: item[0])
    run.allocator_peak_bytes, when = _peak([(time, size) for time, size, _ in sizes], step)
    if marks is None:
        return
    ops = [Op(name, *spans[number], held) for number, (name, held) in enumerate(marks.seen)]
    blocks = _blocks(sizes)
    workspace = _workspace(ops, blocks, step)
    _compare(run, ops, sizes, workspace, ("aten.detach.default", *kind.between))
    hidden = {block for found in workspace for block in found}
    kept = [event for block in blocks if block not in hidden for event in _events(block)]
    run.visible_peak_bytes, _ = _peak(sorted(kept, key=lambda item: item[0]), step)
    for op, found in zip(ops, workspace, strict=True):
        alive = [block for block in found if block.made <= when and (block.freed or when) > when]
        if op.start <= when <= op.end or any(block.made == when for block in alive):
            run.peak_op, run.workspace_bytes = op.name, sum(block.bytes for block in alive)
            run.bytes_under_peak_op = op.ledger_bytes - _still_to_come(op, blocks, hidden, when)


def _still_to_come(op: Op, blocks: list[Loan], hidden: set[Loan], when: int) -> int:
    """Return the net bytes that ``op`` takes for good between ``when`` and its end."""
    come = sum(block.bytes for block in blocks if block not in hidden and when < block.made <= op.end)
    gone = sum(block.bytes for block in blocks if block not in hidden and when < (block.freed or 0) <= op.end)
    return come - gone


def _events(block: Loan) -> list[tuple[int, int]]:
    made = [(block.made, block.bytes)]
    return made if block.freed is None else [*made, (block.freed, -block.bytes)]


def _peak(events: list[tuple[int, int]], step: tuple[int, int]) -> tuple[int, int]:
    """Return (most live bytes within ``step``, when); what is live when it begins counts."""
    start, end = step
    live = sum(size for time, size in events if time < start)
    highest, when = live, start
    for time, size in events:
        if start <= time <= end:
            live += size
            if live > highest:
                highest, when = live, time
    return highest, when


def _blocks(sizes: list[tuple[int, int, int]]) -> list[Loan]:
    """Pair each allocation with the next free of the same address."""
    out: dict[int, tuple[int, int]] = {}
    found = []
    for time, size, address in sizes:
        if size > 0:
            out[address] = (time, size)
        elif address in out:
            made, taken = out.pop(address)
            found.append(Loan(taken, made, time))
    return [*found, *(Loan(size, made, None) for made, size in out.values())]


def _workspace(ops: list[Op], blocks: list[Loan], step: tuple[int, int]) -> list[list[Loan]]:
    """Return for each op what its call allocates and frees again: in the kernel, or around it for a number of Python.

    A block of one, eight or sixteen bytes, a scalar, that is made after the op before ended and freed before the op
    behind begins, and that the ledger does not count when the op ends, is the call's number.
    """
    found: list[list[Loan]] = []
    short = [block for block in blocks if block.freed is not None and step[0] <= block.made <= step[1]]
    short.sort(key=lambda block: block.made)
    position = 0
    for number, op in enumerate(ops):
        before = ops[number - 1].end if number else step[0]
        behind = ops[number + 1].start if number + 1 < len(ops) else step[1]
        mine: list[Loan] = []
        while position < len(short) and short[position].made <= op.end:
            block = short[position]
            position += 1
            assert block.freed is not None
            inside = op.start <= block.made and block.freed <= op.end
            around = before <= block.made < op.start and op.end < block.freed <= behind and block.bytes in (1, 8, 16)
            if inside or around:
                mine.append(block)
        found.append(mine)
    return found


def _compare(
    run: Run, ops: list[Op], sizes: list[tuple[int, int, int]], workspace: list[list[Loan]], skipped: tuple[str, ...]
) -> None:
    """Compare the two accounts at the end of every op; a number that the ledger counts is no workspace."""
    live, position, last = 0, 0, 0
    for number, op in enumerate(ops):
        if op.name in skipped:
            continue
        run.ops += 1
        while position < len(sizes) and sizes[position][0] <= op.end:
            live += sizes[position][1]
            position += 1
        difference = live - op.ledger_bytes
        numbers = [block for block in workspace[number] if block.made < op.start]
        carried = sum(block.bytes for block in numbers)
        if numbers and difference != carried:
            workspace[number][:] = [block for block in workspace[number] if block.made >= op.start]
        elif numbers:
            difference = 0
        if difference:
            run.differences.append(Difference(number, op.name, difference, difference - last))
        last = difference
