"""Kinds that differ in what is wrapped around: optimizers in optimizers, DDP, FSDP2, and threads."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.ledger_steps.catalogue import Setup, Stack, adamw, batch, kind


def one_process() -> None:
    """Join a group of one process, for good."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def _train(model: nn.Module, optimizer: Any, forward: Callable[[Tensor], Tensor] | None = None) -> Setup:
    x, y = batch()

    def step() -> None:
        F.cross_entropy((forward or model)(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


# -- optimizers -------------------------------------------------------------------------------------------------------


class Around:
    """Passes on what a loop calls to the optimizers that it keeps in a dict of lists."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.kept = {"all": list(optimizers)}

    def step(self) -> None:
        for optimizer in self.kept["all"]:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.kept["all"]:
            optimizer.zero_grad()


class MasterCopies:
    """Trains copies of the parameters in double precision."""

    def __init__(self, model: nn.Module) -> None:
        self.of = list(model.parameters())
        self.masters = [nn.Parameter(p.detach().double()) for p in self.of]
        self.inner = torch.optim.AdamW(self.masters, lr=1e-3)

    def step(self) -> None:
        for master, parameter in zip(self.masters, self.of, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.double()
        self.inner.step()
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.of, strict=True):
                parameter.copy_(master)
                master.grad = None

    def zero_grad(self) -> None:
        for parameter in self.of:
            parameter.grad = None


class Lookahead(torch.optim.Optimizer):
    """Steps fast, and every other time back half the way to where it was (Zhang et al. 2019)."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner, self.taken = inner, 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                slow = self.state[p].setdefault("slow", p.clone())
                if self.taken % 2 == 0:
                    slow.lerp_(p, 0.5)
                    p.copy_(slow)


@kind("ZeroRedundancyOptimizer around AdamW", opens="after")
def zero_redundancy() -> Setup:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    one_process()
    model = Stack()
    return _train(model, ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3))


@kind("two optimizers in a wrapper of one's own")
def optimizers_in_a_wrapper() -> Setup:
    model = Stack()
    return _train(model, Around([adamw(model.layers), torch.optim.SGD(model.head.parameters(), lr=0.1, momentum=0.9)]))


@kind("copies of the parameters in higher precision, kept by a wrapper", opens="after")
def master_copies() -> Setup:
    model = Stack()
    return _train(model, MasterCopies(model))


@kind("Lookahead around AdamW")
def lookahead() -> Setup:
    model = Stack()
    return _train(model, Lookahead(adamw(model)))


@kind("Rprop, one parameter at a time")
def rprop() -> Setup:
    model = Stack()
    return _train(model, torch.optim.Rprop(model.parameters(), foreach=False))


@kind("averaged SGD", opens="after")
def averaged_sgd() -> Setup:
    model = Stack()
    return _train(model, torch.optim.ASGD(model.parameters(), foreach=True))


# -- distributed ------------------------------------------------------------------------------------------------------


@kind("DDP, gradients copied into its buckets", warm_steps=3)
def ddp() -> Setup:
    one_process()
    model = DistributedDataParallel(Stack())
    return _train(model, adamw(model))


@kind("DDP, accumulation without synchronisation", warm_steps=3)
def ddp_no_sync() -> Setup:
    one_process()
    model, (x, y) = DistributedDataParallel(Stack()), batch()
    optimizer = adamw(model)

    def step() -> None:
        with model.no_sync():
            F.cross_entropy(model(x), y).backward()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})


def _sharded(**options: Any) -> Setup:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    one_process()
    model, mesh = Stack(), init_device_mesh("cpu", (1,))
    for part in (*model.layers, model):
        fully_shard(part, mesh=mesh, **options)
    return _train(model, torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True))


@kind("FSDP2: every layer sharded, gathered again for the backward", warm_steps=2)
def fsdp() -> Setup:
    return _sharded()


@kind("FSDP2 that keeps its gathered parameters for the backward", opens="after", warm_steps=2)
def fsdp_kept() -> Setup:
    return _sharded(reshard_after_forward=False)


@kind("FSDP2 with every layer checkpointed", opens="after", warm_steps=2)
def fsdp_checkpointed() -> Setup:
    from torch.distributed._composable import checkpoint

    setup = _sharded()
    for layer in setup.models["model"].layers:
        checkpoint(layer)
    return setup


# -- threads ----------------------------------------------------------------------------------------------------------


def _watched(task: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Let the profiler, if one runs in this thread, see what ``task`` allocates in another."""
    if not torch._C._autograd._profiler_enabled():
        return task
    library = ctypes.PyDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    # torch exports these for threads of C++ and has no binding for Python
    begin = library["_ZN5torch8autograd8profiler27enableProfilerInChildThreadEv"]
    end = library["_ZN5torch8autograd8profiler28disableProfilerInChildThreadEv"]

    def run(*args: Any) -> Tensor | None:
        begin()
        try:
            return task(*args)
        finally:
            end()

    return run


def _in_threads(run: Callable[[Callable[..., Any]], Tensor]) -> Setup:
    model = Stack()
    return _train(model, adamw(model), lambda x: run(_watched(lambda: model(x))))


@kind("the forward in a thread")
def forward_in_a_thread() -> Setup:
    def run(forward: Callable[..., Any]) -> Tensor:
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(forward()))
        thread.start()
        thread.join()
        return made.pop()

    return _in_threads(run)


@kind("the forward in a pool that was there before", opens="after")
def forward_in_a_pool() -> Setup:
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    return _in_threads(lambda forward: pool.submit(forward).result())


@kind("the forward through asyncio")
def forward_through_asyncio() -> Setup:
    return _in_threads(lambda forward: asyncio.run(asyncio.to_thread(forward)))


@kind("two halves of the batch in turn, each in a thread", opens="after")
def halves_in_threads() -> Setup:
    model, (x, y) = Stack(), batch()
    optimizer = adamw(model)

    def half(part: slice) -> None:
        (F.cross_entropy(model(x[part]), y[part]) / 2).backward()

    def step() -> None:
        for part in (slice(0, len(x) // 2), slice(len(x) // 2, len(x))):
            thread = threading.Thread(target=_watched(half), args=(part,))
            thread.start()
            thread.join()
        optimizer.step()
        optimizer.zero_grad()

    return Setup(step, {"model": model}, [optimizer], {"x": x, "y": y})
