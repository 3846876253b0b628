"""What happens where no dispatcher looks: memory that is taken without an op, and work that leaves this process.

The first is booked piece by piece: random-number states that checkpointing stashes, ``UntypedStorage.resize_``, copies
that ``copy.deepcopy`` makes of tensors, what ``torch.load`` reads. Of the second, child processes and replays of CUDA
graphs, nothing can be booked; it is counted and said.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dbbench.measure.recorder import Recorder

CHILD_PROCESS, CUDA_GRAPH = "child process", "replay of a CUDA graph"


def book_untracked_allocations(recorder: Recorder) -> None:
    """Watch the places where torch takes or resizes memory without an op."""
    get_rng_state, resize = torch.get_rng_state, torch.UntypedStorage.resize_
    read = torch._C.PyTorchFileReader.get_storage_from_record

    def recorded_rng_state() -> Tensor:
        state = get_rng_state()
        recorder.took_aside(state, "get_rng_state", "random-number state")
        return state

    def recorded_resize(storage: Any, size: int) -> Any:
        result = resize(storage, size)
        recorder.resized(storage, "UntypedStorage.resize_")
        return result

    def recorded_clone(storage: Any) -> Any:
        made = torch.UntypedStorage(storage.nbytes(), device=storage.device)
        recorder.took_storage(made, "UntypedStorage.clone")  # before the copy, which is an op on what would be unknown
        return made.copy_(storage)

    def recorded_read(reader: Any, *args: Any, **kwargs: Any) -> Any:
        tensor = read(reader, *args, **kwargs)
        recorder.took_storage(tensor.untyped_storage(), "torch.load")
        return tensor

    recorder.patch(torch.UntypedStorage, "clone", recorded_clone)  # what copy.deepcopy makes of a tensor
    recorder.patch(torch._C.PyTorchFileReader, "get_storage_from_record", recorded_read)
    recorder.patch(torch, "get_rng_state", recorded_rng_state)
    recorder.patch(torch.random, "get_rng_state", recorded_rng_state)
    recorder.patch(torch.UntypedStorage, "resize_", recorded_resize)


def count_what_leaves(recorder: Recorder) -> None:
    """Count the child processes that are started and the CUDA graphs that are replayed."""

    def counted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            recorder.left(what)
            return original(*args, **kwargs)

        return call

    for owner, name, what in (
        (BaseProcess, "start", CHILD_PROCESS),
        (subprocess.Popen, "__init__", CHILD_PROCESS),
        (torch.cuda.CUDAGraph, "replay", CUDA_GRAPH),
    ):
        if hasattr(owner, name):
            recorder.patch(owner, name, counted(what, getattr(owner, name)))
