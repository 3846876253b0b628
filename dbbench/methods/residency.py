"""Where a block-wise method keeps the blocks that it is not training.

``all`` keeps everything on the device, as the released DiffusionBlocks code does. ``state`` moves the inactive
blocks' optimizer state off it, ``active`` their parameters too: that is what the paper's (4P + A)·L/B presupposes.
Off the device means pinned host memory on CUDA, a file without a live tensor on CPU, and nothing at all for fake
tensors; in every case the device's allocator gets its bytes back. The file has no name: however a process ends, killed
in the middle of a step or not, the system takes it back.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal, cast

import torch
from torch import Tensor, nn

from dbbench.phases import phase

Kind = Literal["all", "state", "active"]


class Residency:
    """Parks and fetches what belongs to one block alone; ``moved_bytes`` and ``seconds`` count both directions."""

    def __init__(self, kind: Kind, blocks: Sequence[Sequence[nn.Parameter]], optimizer: torch.optim.Optimizer) -> None:
        self.kind, self.blocks, self.optimizer = kind, blocks, optimizer
        self.moved_bytes = 0
        self.seconds = 0.0
        self._parameters: dict[int, _Parked] = {}
        self._states: dict[int, _ParkedState] = {}
        self._shelf = _Shelf()

    def activate(self, block: int, training: bool = True) -> None:
        """Make ``block`` the only one on the device; without ``training`` its optimizer state stays where it is."""
        if self.kind == "all":
            return
        started = time.perf_counter()
        with phase("swap"), torch.no_grad():
            for other in range(len(self.blocks)):
                if other != block:
                    self._park(other)
            self._fetch(block, training)
        self.seconds += time.perf_counter() - started

    def gather(self) -> None:
        """Bring everything back onto the device, to save it for example."""
        with phase("swap"), torch.no_grad():
            for block in range(len(self.blocks)):
                self._fetch(block, training=True)

    def _park(self, block: int) -> None:
        members = [p for p in self.blocks[block] if p in self.optimizer.state]
        if members:
            states = [self.optimizer.state.pop(p) for p in members]
            tensors = [value for state in states for value in state.values()]
            parked = _Parked(tensors, self._shelf, f"state-{block}")
            self._states[block] = _ParkedState(members, [list(state) for state in states], parked)
            self.moved_bytes += parked.nbytes
        if self.kind == "active" and block not in self._parameters:
            parked = _Parked([p.data for p in self.blocks[block]], self._shelf, f"parameters-{block}")
            self._parameters[block] = parked
            self.moved_bytes += parked.nbytes
            for p in self.blocks[block]:
                p.data = torch.empty(0, dtype=p.dtype, device=p.device)

    def _fetch(self, block: int, training: bool) -> None:
        if block in self._parameters:
            parked = self._parameters.pop(block)
            for p, data in zip(self.blocks[block], parked.restore(), strict=True):
                p.data = data
            self.moved_bytes += parked.nbytes
        if training and block in self._states:
            state = self._states.pop(block)
            values = iter(state.values.restore())
            for p, keys in zip(state.members, state.keys, strict=True):
                self.optimizer.state[p] = {key: next(values) for key in keys}
            self.moved_bytes += state.values.nbytes


class _Shelf:
    """A file without a name, in which everything has a place of its own that it comes back to."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}

    def write(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep contiguous CPU ``tensors`` under ``name``, in the place of what was there."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="dbbench-")  # noqa: SIM115 (it goes with the shelf)
        size = sum(t.numel() * t.element_size() for t in tensors)
        if size > self._places.get(name, (0, -1))[1]:
            self._places[name] = (self._end, size)
            self._end += size
        self._file.seek(self._places[name][0])
        for t in tensors:
            self._file.write(_buffer(t))
        self._file.flush()

    def read(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Fill ``tensors`` with what was kept under ``name``."""
        file = cast(IO[bytes], self._file)
        file.seek(self._places[name][0])
        for t in tensors:
            cast(io.BufferedIOBase, file).readinto(_buffer(t))


class _Parked:
    """Tensors off the device. Only their shapes are left here; `restore` allocates them anew.

    A fake tensor has no values, but for a single number that it saw being made: how many steps an optimizer has taken,
    which its foreach implementation reads. That is kept, for a real run can read it as well.
    """

    def __init__(self, tensors: Sequence[Tensor], shelf: _Shelf, name: str) -> None:
        self.layouts = [(t.shape, t.dtype, t.device) for t in tensors]
        self.nbytes = sum(t.numel() * t.element_size() for t in tensors)
        self.shelf, self.name = shelf, name
        self.pinned: list[Tensor] = []
        self.numbers: list[float | None] = [None] * len(tensors)
        self.real = all(t.untyped_storage().device.type != "meta" for t in tensors)
        if not self.real:
            self.numbers = [t.item() if getattr(t, "constant", None) is not None else None for t in tensors]
            return
        if any(t.is_cuda for t in tensors):
            self.pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t) for t in tensors]
            return
        shelf.write(name, tensors)

    def restore(self) -> list[Tensor]:
        """Return the tensors on their devices again."""
        if self.pinned:
            return [t.to(device) for t, (_, _, device) in zip(self.pinned, self.layouts, strict=True)]
        tensors = [
            torch.empty(shape, dtype=dtype, device=device)
            if number is None
            else torch.tensor(number, dtype=dtype, device=device)
            for (shape, dtype, device), number in zip(self.layouts, self.numbers, strict=True)
        ]
        if self.real:
            self.shelf.read(self.name, tensors)
        return tensors


@dataclass
class _ParkedState:
    members: list[nn.Parameter]
    keys: list[list[str]]
    values: _Parked


def _buffer(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous CPU tensor without a copy."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
