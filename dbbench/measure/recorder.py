"""Records every storage that is made, resized or freed while it is open, and in which phase.

A dispatch mode sees each op's results; a weak reference tells when a storage goes; saved-tensor hooks tell what
autograd keeps. Three things happen where no dispatcher looks and are watched one by one: `UntypedStorage.resize_`, the
random-number states that checkpointing stashes, and the hooks that checkpointing pushes over ours.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dbbench import phases
from dbbench.measure import private
from dbbench.measure.flops import FlopCount
from dbbench.measure.modules import ModulePaths
from dbbench.results.trace import Trace

#: ``torch.tensor`` fills its result before the dispatcher and shows it here first.
_LIFT = torch.ops.aten.lift_fresh.default
_CAST = torch.ops.aten._to_copy.default


class Recorder(private.TorchDispatchMode):
    """One trace, from `open` to `close`. ``on_boundary`` is called whenever a phase has ended."""

    def __init__(self, device_type: str, on_boundary: Callable[[], None]) -> None:
        super().__init__()
        self.device_type = device_type
        self.trace = Trace(device_type)
        self.modules = ModulePaths()
        self.flops = FlopCount()
        self.on_boundary = on_boundary
        self._serial: dict[int, int] = {}  # storage address -> number, for the living
        self._size: dict[int, int] = {}  # number -> bytes, for the living
        self._references: dict[int, weakref.ref[Any]] = {}
        self._op_names: dict[Any, str] = {}
        self._bypass = False
        self._marks: list[tuple[str, int]] = []
        self._phase = ("setup", 0)
        self._instances = 0
        self._born: dict[int, list[int]] = {}
        self._undo: list[Callable[[], None]] = []

    # -- opening and closing ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start recording."""
        self.modules.open()
        optimizer_hooks = [
            register_optimizer_step_pre_hook(lambda *_: self.mark("optimizer")),
            register_optimizer_step_post_hook(lambda *_: self.mark(None)),
        ]
        phases.listeners.append(self.mark)
        self._undo = [handle.remove for handle in optimizer_hooks]
        self._undo.append(lambda: phases.listeners.remove(self.mark))
        self._patch_saved_tensors_hooks()
        self._patch_untracked_allocations()
        self._base_hooks = saved_tensors_hooks(self._pack, lambda x: x)
        self._base_hooks.__enter__()
        self.__enter__()

    def close(self) -> None:
        """Stop recording; what is alive stays in the trace as never freed."""
        self.__exit__(None, None, None)
        self._base_hooks.__exit__(None, None, None)
        for undo in reversed(self._undo):
            undo()
        self.modules.close()
        self._references.clear()

    # -- phases -------------------------------------------------------------------------------------------------

    def mark(self, name: str | None) -> None:
        """Open the phase ``name``, or close the innermost open one with None."""
        if not self._marks:
            self._now()  # a backward that is over ends here
        if name is not None:
            self._instances += 1
            self._marks.append((name, self._instances))
        elif self._marks:
            _, instance = self._marks.pop()
            self._end(instance)

    def settle(self) -> None:
        """Notice that the phase which ran last has ended (a step is over)."""
        if not self._marks and self._phase[0] != "setup":
            self._enter_forward()

    def _now(self) -> tuple[str, int]:
        """Return the running phase and its number; a backward resumes after what is nested in it."""
        if self._marks:
            return self._marks[-1]
        task = private.graph_task()
        name, instance = self._phase
        if task != -1:
            if private.is_reentrant_recomputation(private.current_node()):
                return ("recompute", -1 - task)
            if instance != -2 - 2 * task:
                self._end(instance)
                self._phase = ("backward", -2 - 2 * task)
        elif name == "backward":
            self._enter_forward()
        return self._phase

    def _enter_forward(self) -> None:
        """End the phase that was running; what comes is a forward until something else shows."""
        self._end(self._phase[1])
        self._instances += 1
        self._phase = ("forward", self._instances)

    def _end(self, instance: int) -> None:
        """Note what the phase ``instance`` made and left alive."""
        for number in self._born.pop(instance, ()):
            if number in self._size:
                self.trace.outlived.setdefault(number, None)
        bypass, self._bypass = self._bypass, True
        try:
            self.on_boundary()
        finally:
            self._bypass = bypass

    def begin_steps(self) -> None:
        """Leave set-up: from here on, unmarked work is forward or backward."""
        if self._phase[0] == "setup":
            self._enter_forward()

    # -- events -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._bypass:
            return func(*args, **kwargs)
        phase = self._now()
        out = func(*args, **kwargs)
        self.flops.add(func, args, kwargs, out, phase[0])
        if isinstance(out, Tensor):
            self._see(out, func, args, phase)
        elif isinstance(out, (tuple, list)):
            for item in out:
                if isinstance(item, Tensor):
                    self._see(item, func, args, phase)
        return out

    def _see(self, tensor: Tensor, func: Any, args: tuple[Any, ...], phase: tuple[str, int]) -> None:
        if tensor.device.type != self.device_type or tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        number = self._serial.get(address)
        if number is not None:
            if storage.nbytes() != self._size[number]:
                self._resized(number, storage.nbytes(), phase, self._op_name(func))
            return
        if _is_input(address, args):
            if not storage.resizable():
                return  # memory that numpy or another library owns is not the allocator's
            if func is not _LIFT:
                self._adopt(storage, address)
                return
        number = self._birth(storage, address, phase, self._op_name(func))
        # inside a cast autocast itself is switched off, so its flag cannot be asked
        if func is _CAST and tensor.is_floating_point() and tensor.itemsize < args[0].itemsize:
            source = self._serial.get(private.storage_key(args[0]))
            if source is not None and self.trace.identity.get(source, ("",))[0] == "parameters":
                self.trace.casts.add(number)

    def _op_name(self, func: Any) -> str:
        name = self._op_names.get(func)
        if name is None:
            name = self._op_names[func] = f"{func.namespace}.{func._overloadpacket.__name__}"
        return name

    def _op(self, phase: tuple[str, int], name: str) -> int:
        trace = self.trace
        node = private.current_node()
        module = self.modules.current()
        if node is not None and not module:
            module = self.modules.of_node(node)
        trace.op_name.append(name)
        trace.op_phase.append(phase[0])
        trace.op_module.append(module)
        return len(trace.op_name) - 1

    def _birth(self, storage: Any, address: int, phase: tuple[str, int], op_name: str) -> int:
        trace, number, size = self.trace, len(self.trace.birth_op), storage.nbytes()
        op = self._op(phase, op_name)
        trace.birth_op.append(op)
        self._event(number, size, op)
        self._track(storage, address, number, size)
        self._born.setdefault(phase[1], []).append(number)
        return number

    def _adopt(self, storage: Any, address: int) -> int:
        """Take in a storage that was there before the recorder opened."""
        trace, number, size = self.trace, len(self.trace.birth_op), storage.nbytes()
        trace.birth_op.append(-1)
        trace.unseen[number] = size
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

    def _freed(self, address: int, number: int) -> None:
        del self._serial[address], self._references[number]
        trace, size = self.trace, self._size.pop(number)
        phase = self._marks[-1][0] if self._marks else self._phase[0]
        if not trace.op_phase or trace.op_phase[-1] != phase:
            trace.op_name.append("(free)")
            trace.op_phase.append(phase)
            trace.op_module.append("")
        self._event(number, -size, len(trace.op_name) - 1)

    def _resized(self, number: int, size: int, phase: tuple[str, int], op_name: str) -> None:
        # a resize allocates the new bytes before it lets the old ones go
        old, self._size[number] = self._size[number], size
        op = self._op(phase, op_name)
        self._event(number, size, op)
        self._event(number, -old, op)

    # -- what the dispatcher does not see -----------------------------------------------------------------------

    def number_of(self, tensor: Tensor) -> int | None:
        """Return the number of ``tensor``'s storage, taking it in if it was there before; None on other devices."""
        if tensor.device.type != self.device_type or tensor.layout is not torch.strided:
            return None
        storage = tensor.untyped_storage()
        number = self._serial.get(storage._cdata)
        if number is None and storage.resizable():
            number = self._adopt(storage, storage._cdata)
        return number

    def is_alive(self, number: int) -> bool:
        """Tell whether the storage ``number`` is alive now."""
        return number in self._size

    def _save(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            number = self._serial.get(private.storage_key(tensor))
            if number is not None:
                self.trace.saved.add(number)

    def _pack(self, tensor: Tensor) -> Tensor:
        self._save(tensor)
        if not tensor.requires_grad or tensor.is_leaf:
            return tensor
        # an output kept as it is would hold its own node, and the node it: a cycle
        bypass, self._bypass = self._bypass, True
        try:
            return tensor.detach()
        finally:
            self._bypass = bypass

    def _patch_saved_tensors_hooks(self) -> None:
        """See what other hooks keep in place of a tensor, and when a checkpoint runs its forward again."""
        recorder, enter, leave = self, saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__

        def entering(hooks: Any) -> None:
            original = hooks.pack_hook

            def pack(tensor: Tensor) -> Any:
                if recomputing:
                    recorder._save(tensor)
                kept = original(tensor)
                for item in kept if isinstance(kept, (tuple, list)) else (kept,):
                    recorder._save(item)
                return kept

            recomputing = private.is_recomputation(hooks)
            if recomputing:
                recorder.mark("recompute")
            hooks.pack_hook = pack
            try:
                enter(hooks)
            finally:
                hooks.pack_hook = original

        def leaving(hooks: Any, *details: Any) -> None:
            leave(hooks, *details)
            if private.is_recomputation(hooks):
                recorder.mark(None)

        self._patch(saved_tensors_hooks, "__enter__", entering, enter)
        self._patch(saved_tensors_hooks, "__exit__", leaving, leave)

    def _patch_untracked_allocations(self) -> None:
        get_rng_state, resize = torch.get_rng_state, torch.UntypedStorage.resize_

        def recorded_rng_state() -> Tensor:
            state = get_rng_state()
            if state.device.type == self.device_type and not self._bypass:
                storage = state.untyped_storage()
                number = self._birth(storage, storage._cdata, self._now(), "get_rng_state")
                self.trace.identity[number] = ("other", "random-number state")
            return state

        def recorded_resize(storage: Any, size: int) -> Any:
            result = resize(storage, size)
            number = self._serial.get(storage._cdata)
            if number is not None and size != self._size[number]:
                self._resized(number, size, self._now(), "UntypedStorage.resize_")
            return result

        for owner, name, wrapper, original in (
            (torch, "get_rng_state", recorded_rng_state, get_rng_state),
            (torch.random, "get_rng_state", recorded_rng_state, get_rng_state),
            (torch.UntypedStorage, "resize_", recorded_resize, resize),
        ):
            self._patch(owner, name, wrapper, original)

    def _patch(self, owner: Any, name: str, wrapper: Any, original: Any) -> None:
        setattr(owner, name, wrapper)
        self._undo.append(lambda: setattr(owner, name, original))


def _is_input(address: int, args: tuple[Any, ...]) -> bool:
    """Tell whether one of an op's arguments already has the storage at ``address``."""
    for arg in args:
        if isinstance(arg, Tensor):
            if arg.layout is torch.strided and private.storage_key(arg) == address:
                return True
        elif isinstance(arg, (list, tuple)) and _is_input(address, tuple(arg)):
            return True
    return False
