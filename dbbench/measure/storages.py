"""The storages that are alive, by number, and the events of their lives: the book that the recorder writes."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from dbbench.measure import private
from dbbench.measure.modules import ModulePaths
from dbbench.measure.phase_clock import Phase, PhaseClock
from dbbench.results.roles import OUT_OF_SIGHT
from dbbench.results.trace import Trace


class _Reference(weakref.ref[Any]):
    """A storage, held weakly, with its number and where it was."""

    __slots__ = ("address", "number")
    address: int
    number: int


class Storages:
    """Numbers every storage by first sight and notes in ``trace`` when it is made, resized and freed.

    ``fake`` counts fake tensors that stand for the device's, and no others; else real tensors alone count. A copy for
    another thread shares all but ``modules`` and ``clock``; who writes holds ``_lock``.
    """

    def __init__(self, device_type: str, fake: bool, modules: ModulePaths, ended: Callable[..., None]) -> None:
        super().__init__()
        self.device_type, self.fake = device_type, fake
        self._on_cpu = device_type == "cpu"
        self.trace = Trace("fake" if fake else device_type)
        self.modules = modules
        self.clock = PhaseClock(ended)
        self.unnamed: list[int] = []  # what has outlived its phase and whose holder nobody has looked for
        self._serial: dict[int, int] = {}  # storage address -> number, for the living
        self._size: dict[int, int] = {}  # number -> bytes, for the living
        self._references: dict[int, _Reference] = {}
        self._born: dict[int, list[int]] = {}  # by the number of the phase
        self._lock = threading.RLock()
        self._gone: deque[_Reference] = deque()  # freed while another thread had the lock
        self.scripted = False  # TorchScript has differentiated a graph, and keeps what it needs where nobody can ask
        self._book: Storages = self  # the one that was copied

    def counts(self, tensor: Tensor) -> bool:
        """Tell whether the memory of ``tensor`` is what is counted here."""
        if isinstance(tensor, private.FakeTensor) is not self.fake:
            return False
        here = tensor.is_cpu if self._on_cpu else tensor.device.type == self.device_type
        return here and not private.has_no_memory(tensor)

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
        trace.before[number] = size
        trace.outlived[number] = None
        self.unnamed.append(number)
        self._track(storage, address, number, size)
        return number

    def _appeared(self, storage: Any) -> int:
        """Take in a storage that was made since the recorder opened, and by nothing that was seen."""
        phase = self.clock.now()  # if one ends here, identities are taken, and this storage may be among them
        known = self._serial.get(storage._cdata)
        return self._birth(storage, storage._cdata, phase, OUT_OF_SIGHT) if known is None else known

    def _track(self, storage: Any, address: int, number: int, size: int) -> None:
        self._serial[address] = number
        self._size[number] = size
        reference = self._references[number] = _Reference(storage, self._book._storage_gone)
        reference.address, reference.number = address, number

    def _storage_gone(self, reference: _Reference) -> None:
        if not self._lock.acquire(blocking=False):  # one that frees may hold locks of torch's, and is not to wait
            self._gone.append(reference)
            return
        try:
            self._freed(reference)
        finally:
            self._lock.release()

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

    def _bury(self) -> None:
        """Book the frees that found the lock taken, before an address can be another storage's."""
        while self._gone:
            self._freed(self._gone.popleft())

    def _freed(self, reference: _Reference) -> None:
        number = reference.number
        if self._references.pop(number, None) is None:
            return  # the recorder has closed
        del self._serial[reference.address]
        self._event(number, -self._size.pop(number), self._free_op())

    def _resized(self, number: int, size: int, phase: Phase, op_name: str) -> None:
        # a resize allocates the new bytes before it lets the old ones go
        old, self._size[number] = self._size[number], size
        op = self._op(phase, op_name)
        self._event(number, size, op)
        self._event(number, -old, op)

    @property
    def live_bytes(self) -> int:
        """The bytes alive now, as far as they were seen; a Python number counts until the next op shows its fate."""
        return sum(self._size.values())

    def numbers_of(self, tensor: Tensor, owned: bool = False, appeared: str = "") -> list[int]:
        """Return the numbers of ``tensor``'s storages, taking in those that were there before; [] on other devices.

        Memory that cannot be resized is taken for another library's, unless the tensor is ``owned``: a parameter's
        stays the model's when somebody has looked at it through numpy, or read it from a mapped file. Where all that
        was there before is known, one without a number has ``appeared`` unseen, under that name.
        """
        found = []
        for storage, plain in private.storages(tensor):
            address = storage._cdata
            number = self._serial.get(address)
            if number is None and self.counts(plain) and (owned or storage.resizable()):
                if appeared and storage.resizable():
                    number = self._appeared(storage)
                    self.trace.unseen[number] = appeared
                else:
                    number = self._adopt(storage, address)
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
