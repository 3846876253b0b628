"""Records every storage that is made, resized or freed while it is open, and in which phase.

A dispatch mode sees each op's results; a weak reference tells when a storage goes; autograd's graph tells what it
keeps (`dbbench.measure.saving`). What happens where no dispatcher looks is watched piece by piece
(`dbbench.measure.outside`), and so are Python numbers in an expression.

A mode is in force in one thread. Each thread that the traced code starts gets a recorder of its own
(`Recorder.for_thread`), with its own phases, modules and last op; trace and storages are shared, under one lock.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dbbench import phases
from dbbench.measure import private
from dbbench.measure.flops import FlopCount, Formula
from dbbench.measure.modules import ModulePaths
from dbbench.measure.outside import book_untracked_allocations, count_what_leaves
from dbbench.measure.phase_clock import Phase, ThreadClock
from dbbench.measure.saving import SavedTensors
from dbbench.measure.several_steps import Update
from dbbench.measure.storages import Storages
from dbbench.measure.threads import follow_threads
from dbbench.measure.unseen import Unseen

#: ``torch.tensor`` fills its result before the dispatcher and shows it here first.
_LIFT = torch.ops.aten.lift_fresh.default
_WITHIN_ANOTHER = (torch.ops.aten.detach.default, torch.ops.aten._efficientzerotensor.default)
_DEVICE = torch.ops.prim.device.default
_CAST = torch.ops.aten._to_copy.default
#: A Python number that stands for a tensor in an expression becomes one, of this many bytes, on the CPU.
_NUMBER_BYTES: dict[type, int] = {float: 8, int: 8, bool: 1, complex: 16}


class Op(NamedTuple):
    """What is worth knowing of an op, found out once.

    ``takes_number`` says that its second argument may be a Python number. ``within_another`` says that autograd
    calls it in the midst of an op, before the op's node can be asked; it allocates nothing. ``composite`` ones are made
    of others, which are seen in their place: under ``inference_mode`` nobody else has taken them apart.
    """

    name: str
    packet: str
    formula: Formula | None
    mutates: bool
    lifts: bool
    casts: bool
    takes_number: bool
    within_another: bool
    composite: bool


class Recorder(Storages, private.TorchDispatchMode):
    """One trace, from `open` to `close`. ``on_boundary`` is called whenever a phase has ended."""

    def __init__(self, device_type: str, on_boundary: Callable[[], None], fake: bool = False) -> None:
        super().__init__(device_type, fake, ModulePaths(self._modules_of_this_thread), self._ended)
        self.flops = FlopCount()
        self.on_boundary = on_boundary
        self._saved = SavedTensors(self)
        self._unseen = Unseen(self._serial)
        self._ops: dict[Any, Op] = {}
        self._plain_kinds: dict[Any, bool] = {}
        self._bypass = False
        self._events_seen = -1
        self._undo = ExitStack()
        self._book: Recorder = self
        self._thread = threading.get_ident()
        self._others: dict[int, Recorder] = {}  # by thread
        self.updates: list[Update] = []

    # -- opening and closing ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start recording."""
        self._thread = threading.get_ident()
        with ExitStack() as undo:
            self._undo = undo
            self.modules.open()
            undo.callback(self.modules.close)
            for register, phase in (
                (register_optimizer_step_pre_hook, "optimizer"),
                (register_optimizer_step_post_hook, None),
            ):
                undo.callback(register(lambda *_, phase=phase: self.mark(phase)).remove)
            undo.callback(register_optimizer_step_post_hook(self._updated).remove)
            phases.listeners.append(self.mark)
            undo.callback(phases.listeners.remove, self.mark)
            self._saved.follow_hooks()
            book_untracked_allocations(self)
            count_what_leaves(self)
            follow_threads(self.patch, self.for_thread)
            undo.enter_context(self)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Stop recording; what is alive stays in the trace as never freed."""
        self._undo.close()
        for other in list(self._others.values()):
            other._bypass = True  # its thread goes on, and takes its mode off when it ends
        self._references.clear()

    def patch(self, owner: Any, name: str, wrapper: Any) -> None:
        """Put ``wrapper`` in the place of an attribute until the recorder closes."""
        self._undo.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, wrapper)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let ops of the ledger's own pass unrecorded, those of the thread that runs alone; the others wait."""
        recorder = self._of_this_thread()
        with self._lock:
            if recorder is None:  # under no mode
                yield
                return
            bypass, recorder._bypass = recorder._bypass, True
            try:
                yield
            finally:
                recorder._bypass = bypass

    def settle(self) -> None:
        """Finish what waits for the next op: the last op's node, and a phase that is over."""
        with self._lock:
            for recorder in (self, *self._others.values()):
                recorder._saved.look()
            self.clock.settle()

    def _ended(self, *instances: int) -> None:
        """Note what phases made and left alive."""
        self._saved.look()
        for instance in instances:
            for number in self._born.pop(instance, ()):
                if number in self._size and number not in self.trace.outlived:
                    self.trace.outlived[number] = None
                    self.unnamed.append(number)
        if len(self.trace.event_op) != self._events_seen:  # nothing new could be found
            self._events_seen = len(self.trace.event_op)
            with self.aside():
                self.on_boundary()

    # -- threads ------------------------------------------------------------------------------------------------

    def for_thread(self) -> Recorder | None:
        """Return a recorder to be entered in a thread that this one starts; None if this one is not followed."""
        starting = self._of_this_thread()
        if starting is None or starting._bypass:
            return None
        with self._lock:
            starting._saved.look()  # the other thread may run the backward, which lets go of what is kept
        other = copy.copy(self)
        private.TorchDispatchMode.__init__(other)
        other.modules = starting.modules.for_thread()
        other.clock = ThreadClock(self.clock, other._ended)
        other._saved = SavedTensors(other)
        return other

    def __enter__(self) -> Any:
        if not isinstance(self.clock, ThreadClock):
            return super().__enter__()
        thread = threading.get_ident()
        if self._bypass or thread == self._thread or thread in self._others:
            return self  # its starter is followed already, or the ledger has closed meanwhile
        self._thread = thread
        self._others[thread] = self
        return super().__enter__()

    def __exit__(self, *details: Any) -> None:
        followed = isinstance(self.clock, ThreadClock)
        if followed and self._others.get(self._thread) is not self:
            return
        super().__exit__(*details)
        if followed:
            if not self._bypass:
                with self._lock:
                    self._saved.look()
                    self.clock.settle()
            del self._others[self._thread]

    def _of_this_thread(self) -> Recorder | None:
        """Return the recorder of the thread that runs: on CUDA autograd's workers carry the mode of who called them."""
        book = self._book
        thread = threading.get_ident()
        if thread == book._thread:
            return book
        modes = (mode for mode in private.modes_in_force() if isinstance(mode, Recorder) and mode._book is book)
        return self._others.get(thread) or next(modes, None)

    def _modules_of_this_thread(self) -> ModulePaths | None:
        recorder = self._of_this_thread()
        return recorder.modules if recorder is not None else None

    def _updated(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        flops = self.flops
        with self._lock:
            self.updates.append(Update(len(self.trace.event_op), id(optimizer), flops.by_phase.copy(), flops.masked))

    def mark(self, phase: str | None) -> None:
        """Open a phase of the thread that runs, or close its innermost with None."""
        recorder = self._of_this_thread()
        if recorder is not None:
            with self._lock:
                recorder.clock.mark(phase)

    # -- events -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _DEVICE and type(args[0]) is private.FakeTensor:
            return args[0].device  # asked twice an op
        kwargs = kwargs or {}
        op = self._ops.get(func) or self._learn(func)
        if self._bypass or op.within_another:
            return func(*args, **kwargs)
        if types and not self._are_plain(types):
            self._saved.unseen_nodes = True
            return NotImplemented  # the subclass's own dispatch comes first; the ops inside it come back here
        if op.composite:
            with self._again():
                return func.decompose(*args, **kwargs)
        with self._lock:
            if self._gone:
                self._bury()
            self._saved.look()
            phase = self.clock.now()
            if phase[0] == "backward":
                if self._saved.unseen_nodes:
                    self._saved.walk(private.current_node())
                self._unseen.look_at(self, args)
            number = self._python_number(args[1], op, phase) if op.takes_number and len(args) > 1 else None
        out = func(*args, **kwargs)
        with self._lock:
            if self._gone:
                self._bury()
            if op.formula is not None:
                try:
                    flops = op.formula(args, kwargs, out)
                except Exception:  # an op's arguments are not those that the formula was written for
                    flops = self.flops.could_not_count(op.name)
                if flops:
                    self.flops.by_phase[phase[0]] += flops
            if isinstance(out, Tensor):
                outputs = [out]
            elif isinstance(out, (tuple, list)):
                outputs = [item for item in out if isinstance(item, Tensor)]
            else:
                outputs = []
            given = (*args, *kwargs.values()) if kwargs else args
            numbers = [self._see(tensor, op, given, phase) for tensor in outputs]
            if number is not None or torch.is_grad_enabled():
                self._saved.expect(op, [weakref.ref(tensor) for tensor in outputs], numbers, number)
        return out

    @contextmanager
    def _again(self) -> Iterator[None]:
        """Be in force within an op of one's own."""
        private.TorchDispatchMode.__enter__(self)
        try:
            yield
        finally:
            private.TorchDispatchMode.__exit__(self, None, None, None)

    def _are_plain(self, types: Any) -> bool:
        plain = self._plain_kinds.get(types)
        if plain is None:
            plain = not any(private.desugars(kind) and not issubclass(kind, private.FakeTensor) for kind in types)
            self._plain_kinds[types] = plain
        return plain

    def _learn(self, func: Any) -> Op:
        packet, arguments = func._overloadpacket.__name__, func._schema.arguments
        op = self._ops[func] = Op(
            name=f"{func.namespace}.{packet}",
            packet=packet,
            formula=self.flops.formula(func),
            mutates=func._schema.is_mutable,
            lifts=func is _LIFT,
            casts=func is _CAST,
            takes_number=self.device_type == "cpu" and len(arguments) > 1 and str(arguments[1].type) == "Tensor",
            # prim: a fake tensor is asked for its device
            within_another=func in _WITHIN_ANOTHER or func.namespace == "prim",
            composite=private.is_composite(func),
        )
        return op

    def _python_number(self, value: Any, op: Op, phase: Phase) -> int | None:
        """Book the tensor that a Python number has become. In a backward it is one that was kept, and booked then."""
        size = _NUMBER_BYTES.get(type(value))
        if size is None or phase[0] == "backward":
            return None
        number = self._new_number(self._op(phase, op.name), phase)
        self._size[number] = size
        self._event(number, size, self.trace.birth_op[number])
        return number

    def settle_number(self, number: int, kept: Tensor | None) -> None:
        """End the life of a Python number's tensor, or follow it if autograd ``kept`` it."""
        size = self._size[number]
        if kept is not None and kept.untyped_storage()._cdata not in self._serial:
            storage = kept.untyped_storage()
            self._track(storage, storage._cdata, number, size)
            self.trace.identity[number] = ("other", "a Python number that autograd keeps")  # no hook is told of it
        else:
            del self._size[number]
            self._event(number, -size, self._free_op())

    def _see(self, tensor: Tensor, op: Op, args: tuple[Any, ...], phase: Phase) -> int:
        """Note an op's result; return the number of its storage, -1 for one that does not count."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            self._see_parts(tensor, op, args, phase)
            return -1
        address = storage._cdata
        number = self._serial.get(address)
        if number is not None:
            if op.mutates and storage.nbytes() != self._size[number]:
                self._resized(number, storage.nbytes(), phase, op.name)
            return number
        if not self.counts(tensor):
            return -1
        if _is_input(address, args):
            if not storage.resizable() and not _is_read_from_file(storage, args):
                return -1  # memory that numpy or another library owns is not the allocator's
            if not op.lifts and storage.resizable():
                return self._adopt(storage, address)
        number = self._birth(storage, address, phase, op.name)
        # inside a cast autocast itself is switched off, so its flag cannot be asked
        if op.casts and tensor.is_floating_point() and tensor.itemsize < args[0].itemsize:
            source = self._serial.get(private.storage_key(args[0]))
            if source is not None and self.trace.identity.get(source, ("",))[0] == "parameters":
                self.trace.casts.add(number)
        return number

    def _see_parts(self, tensor: Tensor, op: Op, args: tuple[Any, ...], phase: Phase) -> None:
        """Note a sparse result, whose indices and values the op may have made itself (clone, coalesce)."""
        with self.aside():
            parts = list(private.plain_tensors(tensor))
            given = [part for arg in args if isinstance(arg, Tensor) for part in private.plain_tensors(arg)]
        for part in parts:
            self._see(part, op, (*args, *given), phase)

    # -- what the dispatcher does not see -----------------------------------------------------------------------

    def took_aside(self, tensor: Tensor, name: str, what: str) -> None:
        """Book a real ``tensor`` that the function ``name`` has made without an op."""
        recorder = self._of_this_thread()
        if recorder is None or recorder._bypass or tensor.device.type != self.device_type:
            return
        with self._lock:
            recorder._saved.look()
            storage = tensor.untyped_storage()
            number = recorder._birth(storage, storage._cdata, recorder.clock.now(), name)
            self.trace.identity[number] = ("other", what)

    def took_storage(self, storage: Any, name: str) -> None:
        """Book a real ``storage`` that the function ``name`` has made without an op."""
        recorder = self._of_this_thread()
        if recorder is None or recorder._bypass or self.fake or storage.device.type != self.device_type:
            return
        with self._lock:
            if storage._cdata not in self._serial:
                recorder._saved.look()
                recorder._birth(storage, storage._cdata, recorder.clock.now(), name)

    def resized(self, storage: Any, name: str) -> None:
        """Book that the function ``name`` has given ``storage`` another size."""
        with self._lock:
            number = self._serial.get(storage._cdata)
            if number is not None and storage.nbytes() != self._size[number]:
                recorder = self._of_this_thread() or self
                recorder._resized(number, storage.nbytes(), recorder.clock.now(), name)

    def note_unknown(self, kept: Tensor) -> None:
        """Hear that autograd keeps a tensor of which no storage has a number."""
        self._unseen.note(self, kept)

    def take_unseen(self, tensor: Tensor, kept_by: str) -> None:
        """Book the storages of ``tensor`` that nobody saw made, as from now; memory of another library's is not."""
        for storage, plain in private.storages(tensor):
            if storage._cdata not in self._serial and self.counts(plain) and storage.resizable():
                self.trace.unseen[self._appeared(storage)] = kept_by

    def left(self, what: str) -> None:
        """Count work that leaves for where nothing of it can be seen."""
        if self.clock.last() != "setup":
            self.trace.left[what] = self.trace.left.get(what, 0) + 1


def _is_input(address: int, args: tuple[Any, ...]) -> bool:
    """Tell whether one of an op's arguments already has the storage at ``address``."""
    for arg in args:
        if isinstance(arg, Tensor):
            if arg.layout is torch.strided and private.storage_key(arg) == address:
                return True
        elif isinstance(arg, (list, tuple)) and _is_input(address, tuple(arg)):
            return True
    return False


def _is_read_from_file(storage: Any, args: tuple[Any, ...]) -> bool:
    """Tell whether an op was handed ``storage`` itself, as torch.load hands what it read into memory of torch's own."""
    given = any(isinstance(arg, torch.UntypedStorage) and arg._cdata == storage._cdata for arg in args)
    return given and not storage.is_shared() and storage.filename is None
