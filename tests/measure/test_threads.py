"""Work on other threads: followed where the step starts them, and told where it cannot be."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from dbbench import Ledger
from dbbench.errors import BadInput
from dbbench.gate.cells import notes_of, unseen_of
from dbbench.measure.account import Account
from dbbench.measure.ledger import BareLedger
from dbbench.profile.table import MemoryTable
from dbbench.pytest_plugin.watching import WatchingLedger, require_seen

BATCH, IN, HIDDEN, FLOAT = 512, 64, 256, 4
#: What GELU and the second map keep: their inputs.
KEPT = 2 * BATCH * HIDDEN * FLOAT


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(IN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


Forward = Callable[[], torch.Tensor]
Run = Callable[[Forward], torch.Tensor]


def directly(forward: Forward) -> torch.Tensor:
    return forward()


def in_a_thread(forward: Forward) -> torch.Tensor:
    made: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: made.append(forward()))
    thread.start()
    thread.join()
    return made.pop()


def through_asyncio(forward: Forward) -> torch.Tensor:
    return asyncio.run(asyncio.to_thread(forward))


@contextmanager
def pool_from_before() -> Iterator[Run]:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield lambda forward: pool.submit(forward).result()


@contextmanager
def queue_from_before() -> Iterator[Run]:
    """A worker that was there before the ledger and takes work from a queue of its own."""
    given: queue.Queue[Forward | None] = queue.Queue()
    done: queue.Queue[torch.Tensor] = queue.Queue()

    def work() -> None:
        while (task := given.get()) is not None:
            done.put(task())
            del task

    thread = threading.Thread(target=work)
    thread.start()

    def run(forward: Forward) -> torch.Tensor:
        given.put(forward)
        return done.get()

    yield run
    given.put(None)
    thread.join()


def measured(run: Run) -> tuple[Account, dict[str, int], Any]:
    """Return the account and the FLOPs of a second training step whose forward goes through ``run``."""
    torch.manual_seed(0)
    with BareLedger() as ledger:
        net, x = Net(), torch.randn(BATCH, IN)
        optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        ledger.watch(net, lambda: [optimizer])
        ledger.declare("inputs", "x", x)
        for step in range(2):
            with ledger.step(step):
                loss = run(lambda: net(x).square().mean())
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                del loss
    return ledger.account(), dict(ledger.flops[-1][1]), ledger


@pytest.fixture(scope="module")
def plain() -> tuple[Account, dict[str, int]]:
    return measured(directly)[:2]


def test_a_forward_in_a_thread_is_the_same_step(plain: tuple[Account, dict[str, int]]) -> None:
    """It had no activations, and nothing said so."""
    with pool_from_before() as pool:
        for run in (in_a_thread, through_asyncio, pool):
            account, flops, _ = measured(run)
            assert account.peak_bytes == plain[0].peak_bytes
            assert account.split == plain[0].split
            assert account.split["activations"] >= KEPT
            assert account.own_peaks == plain[0].own_peaks
            assert flops == plain[1]
            assert account.peak_module == plain[0].peak_module
            assert {(row.role, row.module, row.op) for row in account.held} == {
                (row.role, row.module, row.op) for row in plain[0].held
            }


def test_two_threads_at_once_add_up(plain: tuple[Account, dict[str, int]]) -> None:
    def both(forward: Forward) -> torch.Tensor:
        made: list[torch.Tensor] = []
        together = threading.Barrier(2)

        def one() -> None:
            together.wait()
            made.append(forward())

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return made.pop() + made.pop()

    account, flops, _ = measured(both)
    assert account.own_peaks["activations"] >= 2 * KEPT
    assert flops["forward"] == 2 * plain[1]["forward"]
    assert sum(account.split.values()) == account.peak_bytes
    assert not account.own_peaks["unseen"]


def test_a_whole_step_in_a_thread_books_gradients_and_state() -> None:
    with BareLedger() as ledger:
        net, x = Net(), torch.randn(BATCH, IN)
        optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        ledger.watch(net, lambda: [optimizer])

        def train() -> None:
            net(x).square().mean().backward()
            optimizer.step()

        with ledger.step(0):
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
    account = ledger.account()
    parameters = sum(p.nbytes for p in net.parameters())
    assert account.own_peaks["gradients"] == account.own_peaks["parameters"] == parameters
    assert account.own_peaks["optimizer"] >= 2 * parameters
    assert account.own_peaks["activations"] >= KEPT
    assert set(ledger.flops[0][1]) == {"forward", "backward"}


def test_what_a_thread_of_before_makes_is_a_role_of_its_own(plain: tuple[Account, dict[str, int]]) -> None:
    """The peak was 27 % short, with no word. What autograd keeps is found when the backward begins."""
    with queue_from_before() as run:
        account, flops, _ = measured(run)
    assert account.split["unseen"] == KEPT
    assert account.peak_bytes == plain[0].peak_bytes - FLOAT  # the loss is nobody's but the queue's
    assert sum(account.split.values()) == account.peak_bytes
    assert {row.holder for row in account.held if row.role == "unseen"} == {
        "kept by autograd for Gelu",
        "kept by autograd for Addmm",
    }
    assert "forward" not in flops


def test_gradients_that_appear_from_nowhere_are_unseen() -> None:
    with queue_from_before() as run, BareLedger() as ledger:
        net, x = Net(), torch.randn(BATCH, IN)
        ledger.watch(net)
        with ledger.step(0):
            loss = run(lambda: [net(x).square().mean().backward(), torch.zeros(())][1])
            del loss
    parameters = sum(p.nbytes for p in net.parameters())
    assert ledger.account().split["unseen"] == parameters
    assert ledger.account().split["gradients"] == 0


def test_who_prints_or_judges_figures_says_it() -> None:
    with queue_from_before() as run:
        net, x = Net(), torch.randn(BATCH, IN)
        with Ledger(net, inputs=x) as ledger:
            run(lambda: net(x).mean()).backward()
        words = str(MemoryTable(ledger.profile()))
        first = next(line for line in words.splitlines() if line.startswith("! "))
        assert f"({KEPT:,} bytes) were made where the ledger could not see them" in first
        by_role = words[words.index("By role") :].splitlines()
        assert by_role[3].startswith("unseen")

        with WatchingLedger(net) as watching:
            run(lambda: net(x).mean()).backward()
        with pytest.raises(BadInput, match="could not see"):
            require_seen(watching, False, "test")


class _Row:
    """The fields of a row that tell what was not seen."""

    def __init__(self, unseen: int = 0, work: str = "", uncounted: str = "") -> None:
        self.unseen_own_peak_bytes, self.unmeasured_work, self.uncounted_ops = unseen, work, uncounted


def test_the_gate_vouches_for_no_cell_with_unseen_bytes() -> None:
    assert "4,096 bytes) were made where" in unseen_of(_Row(unseen=4096))  # type: ignore[arg-type]
    assert "3 replays of a CUDA graph" in unseen_of(_Row(work='{"replay of a CUDA graph": 3}'))  # type: ignore[arg-type]
    assert not unseen_of(_Row(work='{"child process": 1}'))  # type: ignore[arg-type]
    assert notes_of(_Row(work='{"child process": 1}'))[0].startswith("1 child process in the step")  # type: ignore[arg-type]
    assert "aten.linalg_eig" in notes_of(_Row(uncounted='{"aten.linalg_eig": 1}'))[0]  # type: ignore[arg-type]


def test_child_processes_and_graph_replays_are_counted() -> None:
    with BareLedger() as ledger, ledger.step(0):
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert ledger.unmeasured_work == {"child process": 1}
    with BareLedger() as ledger:
        subprocess.run([sys.executable, "-c", ""], check=True)  # setting up is no step
        with ledger.step(0):
            pass
    assert ledger.unmeasured_work == {}


def test_a_thread_that_outlives_the_ledger_goes_on_untouched() -> None:
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait()
        torch.ones(3).sum()
        done.set()

    with BareLedger() as ledger, ledger.step(0):
        thread = threading.Thread(target=late)
        thread.start()
    events = len(ledger.trace.event_op)
    go.set()
    thread.join()
    assert done.is_set()
    assert len(ledger.trace.event_op) == events
    assert threading.Thread.start.__module__ == "threading"
