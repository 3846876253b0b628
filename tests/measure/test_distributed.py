"""DDP and FSDP2 in one process: what they keep in C++, gather and send has a role and a name, and sums stay true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from dbbench import Ledger
from dbbench.measure.ledger import BareLedger
from dbbench.results.record import Held

WIDTH, HIDDEN, BATCH, FLOAT = 64, 256, 32, 4
PARAMETERS = (WIDTH * HIDDEN + HIDDEN + HIDDEN * WIDTH + WIDTH) * FLOAT
INPUTS = BATCH * WIDTH * FLOAT
FIRST = (WIDTH * HIDDEN + HIDDEN) * FLOAT

Made = tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]


pytestmark = pytest.mark.usefixtures("group_of_one_process")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))


def training(model: nn.Module) -> Made:
    optimizer = torch.optim.AdamW(model.parameters(), fused=not hasattr(model, "unshard"))
    x = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def sharded() -> Made:
    from torch.distributed.fsdp import fully_shard

    model, mesh = net(), init_device_mesh("cpu", (1,))
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    return training(model)


def ledgers(make: Callable[[], Made]) -> Iterator[Any]:
    """Yield a ledger that was open before everything was made, and one that opened around a later step."""
    with BareLedger() as early:
        model, optimizer, step = make()
        early.watch(model, lambda: [optimizer])
        for _ in range(3):
            step()
        with early.step(0):
            step()
    yield early
    model, optimizer, step = make()
    for _ in range(3):
        step()
    with Ledger(model, optimizer) as late:
        step()
    yield late


def sizes(held: list[Held], role: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in held:
        if row.role == role:
            found[row.holder or row.op] += row.bytes
    return found


@pytest.mark.parametrize("view", [False, True])
def test_ddps_buckets_are_gradients(view: bool, left_by_others_bytes: int) -> None:
    """They were '(no name in Python)', and retained."""
    for ledger in ledgers(lambda: training(DistributedDataParallel(net(), gradient_as_bucket_view=view))):
        account = ledger.account()
        assert sum(account.split.values()) == account.peak_bytes
        assert sizes(account.held, "gradients")["DDP bucket"] == PARAMETERS
        assert account.own_peaks["gradients"] >= (1 if view else 2) * PARAMETERS
        assert account.own_peaks["retained"] - left_by_others_bytes < 1024 + INPUTS  # which nobody declared
        assert account.own_peaks["unseen"] == 0


def test_fsdps_gathered_parameters_have_a_line_and_its_buffers_a_name(left_by_others_bytes: int) -> None:
    for ledger in ledgers(sharded):
        account = ledger.account()
        assert sum(account.split.values()) == account.peak_bytes
        # at the peak of a backward the first layer is gathered beside the shards
        assert sizes(account.held, "parameters")["gathered by FSDP"] in (FIRST, PARAMETERS - FIRST)
        assert account.own_peaks["parameters"] >= PARAMETERS + FIRST
        assert account.own_peaks["optimizer"] >= 2 * PARAMETERS
        assert account.own_peaks["retained"] - left_by_others_bytes < 1024 + INPUTS  # which nobody declared
        assert account.own_peaks["unseen"] == 0
        names = {name for _, name in ledger.trace.identity.values() if name.startswith("FSDP")}
        assert names == {"FSDP's reduce-scatter buffer"}  # what is gathered is parameters before all
