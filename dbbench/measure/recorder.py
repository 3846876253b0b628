"""Records every storage that is made, resized or freed while it is open, and in which phase.

A dispatch mode sees each op's results; a weak reference tells when a storage goes; autograd's graph tells what it
keeps (`dbbench.measure.saving`). What happens where no dispatcher looks is watched piece by piece:
`UntypedStorage.resize_`, the random-number states that checkpointing stashes, and Python numbers in an expression.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dbbench import phases
from dbbench.measure import private
from dbbench.measure.flops import FlopCount, Formula
from dbbench.measure.modules import ModulePaths
from dbbench.measure.phase_clock import Phase, PhaseClock
from dbbench.measure.saving import SavedTensors
from dbbench.results.trace import Trace

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
    calls it in the midst of an op, before the op's node can be asked; it allocates nothing.
    """

    name: str
    packet: str
    formula: Formula | None
    mutates: bool
    lifts: bool
    casts: bool
    takes_number: bool
    within_another: bool


class Recorder(private.TorchDispatchMode):
    """One trace, from `open` to `close`. ``on_boundary`` is called whenever a phase has ended.

    ``fake`` counts fake tensors that stand for the device's, and no others; else real tensors alone count.
    """

    def __init__(self, device_type: str, on_boundary: Callable[[], None], fake: bool = False) -> None:
        super().__init__()
        self.device_type, self.fake = device_type, fake
        self.trace = Trace("fake" if fake else device_type)
        self.modules = ModulePaths()
        self.flops = FlopCount()
        self.clock = PhaseClock(self._ended)
        self.on_boundary = on_boundary
        self._saved = SavedTensors(self)
        self._serial: dict[int, int] = {}  # storage address -> number, for the living
        self._size: dict[int, int] = {}  # number -> bytes, for the living
        self._references: dict[int, weakref.ref[Any]] = {}
        self._ops: dict[Any, Op] = {}
        self._plain_kinds: dict[Any, bool] = {}
        self._bypass = False
        self._events_seen = -1
        self.unnamed: list[int] = []  # what has outlived its phase and whose holder nobody has looked for
        self._born: dict[int, list[int]] = {}
        self._undo = ExitStack()

    # -- opening and closing ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start recording."""
        with ExitStack() as undo:
            self._undo = undo
            self.modules.open()
            undo.callback(self.modules.close)
            for register, phase in (
                (register_optimizer_step_pre_hook, "optimizer"),
                (register_optimizer_step_post_hook, None),
            ):
                undo.callback(register(lambda *_, phase=phase: self.clock.mark(phase)).remove)
            phases.listeners.append(self.clock.mark)
            undo.callback(phases.listeners.remove, self.clock.mark)
            self._saved.follow_hooks()
            self._patch_untracked_allocations()
            undo.enter_context(self)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Stop recording; what is alive stays in the trace as never freed."""
        self._undo.close()
        self._references.clear()

    def patch(self, owner: Any, name: str, wrapper: Any) -> None:
        """Put ``wrapper`` in the place of an attribute until the recorder closes."""
        self._undo.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, wrapper)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let ops of the ledger's own pass unrecorded."""
        bypass, self._bypass = self._bypass, True
        try:
            yield
        finally:
            self._bypass = bypass

    def settle(self) -> None:
        """Finish what waits for the next op: the last op's node, and a phase that is over."""
        self._saved.look()
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
        self._saved.look()
        phase = self.clock.now()
        if self._saved.unseen_nodes and phase[0] == "backward":
            self._saved.walk(private.current_node())
        number = self._python_number(args[1], op, phase) if op.takes_number and len(args) > 1 else None
        out = func(*args, **kwargs)
        if op.formula is not None:
            flops = op.formula(args, kwargs, out)
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
        if not self._counts(tensor):
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

    def _counts(self, tensor: Tensor) -> bool:
        kind = isinstance(tensor, private.FakeTensor)
        return tensor.device.type == self.device_type and kind is self.fake and not private.has_no_memory(tensor)

    def _op(self, phase: Phase, name: str) -> int:
        trace, module = self.trace, self.modules.current()
        if not module:
            node = private.current_node()
            if node is not None:
                module = self.modules.of_node(node)
        trace.op_name.append(name)
        trace.op_phase.append(phase[0])
        trace.op_module.append(module)
        return len(trace.op_name) - 1

    def _new_number(self, op: int, phase: Phase) -> int:
        self.trace.birth_op.append(op)
        number = len(self.trace.birth_op) - 1
        self._born.setdefault(phase[1], []).append(number)
        return number

    def _birth(self, storage: Any, address: int, phase: Phase, op_name: str) -> int:
        op, size = self._op(phase, op_name), storage.nbytes()
        number = self._new_number(op, phase)
        self._event(number, size, op)
        self._track(storage, address, number, size)
        return number

    def _adopt(self, storage: Any, address: int) -> int:
        """Take in a storage that was there before the recorder opened."""
        trace, number, size = self.trace, len(self.trace.birth_op), storage.nbytes()
        trace.birth_op.append(-1)
        trace.unseen[number] = size
        trace.outlived[number] = None
        self.unnamed.append(number)
        self._track(storage, address, number, size)
        return number

    def _track(self, storage: Any, address: int, number: int, size: int) -> None:
        self._serial[address] = number
        self._size[number] = size

        def gone(_: Any, recorder: Recorder = self, address: int = address, number: int = number) -> None:
            recorder._freed(address, number)

        self._references[number] = weakref.ref(storage, gone)

    def _event(self, number: int, delta: int, op: int) -> None:
        trace = self.trace
        trace.event_storage.append(number)
        trace.event_bytes.append(delta)
        trace.event_op.append(op)

    def _free_op(self) -> int:
        """Return the op that a free is booked on: the last one, unless the phase has changed since."""
        trace, phase = self.trace, self.clock.last()
        if not trace.op_phase or trace.op_phase[-1] != phase:
            trace.op_name.append("(free)")
            trace.op_phase.append(phase)
            trace.op_module.append("")
        return len(trace.op_name) - 1

    def _freed(self, address: int, number: int) -> None:
        del self._serial[address], self._references[number]
        self._event(number, -self._size.pop(number), self._free_op())

    def _resized(self, number: int, size: int, phase: Phase, op_name: str) -> None:
        # a resize allocates the new bytes before it lets the old ones go
        old, self._size[number] = self._size[number], size
        op = self._op(phase, op_name)
        self._event(number, size, op)
        self._event(number, -old, op)

    # -- what the dispatcher does not see -----------------------------------------------------------------------

    @property
    def live_bytes(self) -> int:
        """The bytes alive now, as far as they were seen; a Python number counts until the next op shows its fate."""
        return sum(self._size.values())

    def numbers_of(self, tensor: Tensor, owned: bool = False) -> list[int]:
        """Return the numbers of ``tensor``'s storages, taking in those that were there before; [] on other devices.

        Memory that cannot be resized is taken for another library's, unless the tensor is ``owned``: a parameter's
        stays the model's when somebody has looked at it through numpy, or read it from a mapped file.
        """
        found = []
        for storage, plain in private.storages(tensor):
            number = self._serial.get(storage._cdata)
            if number is None and self._counts(plain) and (owned or storage.resizable()):
                number = self._adopt(storage, storage._cdata)
            if number is not None:
                found.append(number)
        return found

    def known_numbers(self, tensor: Tensor) -> list[int]:
        """Return the numbers of those storages of ``tensor`` that have one."""
        serial = self._serial
        return [serial[storage._cdata] for storage, _ in private.storages(tensor) if storage._cdata in serial]

    def alive(self) -> list[int]:
        """Return the numbers of the storages that are alive."""
        return list(self._size)

    def addresses(self, numbers: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return ``{storage address: (number, bytes)}`` of those of ``numbers`` that are alive."""
        alive = {number: self._size[number] for number in numbers if number in self._size}
        if not alive:
            return {}
        return {address: (n, alive[n]) for address, n in self._serial.items() if n in alive}

    def _patch_untracked_allocations(self) -> None:
        get_rng_state, resize = torch.get_rng_state, torch.UntypedStorage.resize_

        def recorded_rng_state() -> Tensor:
            state = get_rng_state()
            if state.device.type == self.device_type and not self._bypass:  # real, whatever the tensors are
                self._saved.look()
                storage = state.untyped_storage()
                number = self._birth(storage, storage._cdata, self.clock.now(), "get_rng_state")
                self.trace.identity[number] = ("other", "random-number state")
            return state

        def recorded_resize(storage: Any, size: int) -> Any:
            result = resize(storage, size)
            number = self._serial.get(storage._cdata)
            if number is not None and size != self._size[number]:
                self._resized(number, size, self.clock.now(), "UntypedStorage.resize_")
            return result

        self.patch(torch, "get_rng_state", recorded_rng_state)
        self.patch(torch.random, "get_rng_state", recorded_rng_state)
        self.patch(torch.UntypedStorage, "resize_", recorded_resize)


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
