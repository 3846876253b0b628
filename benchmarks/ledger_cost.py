"""What the ledger costs an op, beside MemTracker and FlopCounterMode, and whether that stays linear.

    python -m benchmarks.ledger_cost [--out reports/ledger] [--quick]

Chains of (Linear, ReLU) pairs grow until a training step dispatches 100,000 ops; two transformers stand beside them. On
each, the plain step and the step under each tool run in turn, round after round, in one process on one thread, and
every ratio is taken within a round. A tool's time is all that its user waits for: opening, the traced step, closing and
the figures; the ledger's include the peak, its split and what is held by module and op. Opening and closing
is what a tool costs once, whatever the step; the rest, less the plain step, is what it costs an op.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ledger_cost_report import (
    FLOPS,
    LEDGER,
    MEMORY,
    OPENING,
    PLAIN,
    STEP_LIMIT_SECONDS,
    Timed,
    draw,
    report,
)
from dbbench import Ledger
from dbbench.networks.base import InputShape, initialise
from dbbench.networks.vit import ViT
from dbbench.streams import Streams

CHAINS = (25, 50, 100, 200, 400, 1600, 6250)
QUICK_CHAINS = (25, 50, 100)
WIDTH, ROWS = 16, 8
ROUNDS, QUICK_ROUNDS = 7, 3
FEWEST_ROUNDS = 3
#: Rounds on one model stop after this long, once there are `FEWEST_ROUNDS`.
MODEL_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A model, its optimizer and one training step of it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], None]


class CountOps(TorchDispatchMode):
    """Counts the ops that reach the dispatcher."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _job(model: nn.Module, inputs: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Job:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss_of(model(inputs)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Job(model, optimizer, step)


def chain(pairs: int) -> Job:
    """Return ``pairs`` of (Linear, ReLU), small enough that Python is what takes the time."""
    layers = [layer for _ in range(pairs) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return _job(nn.Sequential(*layers), torch.randn(ROWS, WIDTH), Tensor.sum)


def encoder() -> Job:
    """Return ``torch.nn.TransformerEncoder`` of six layers, width 64, on 4 sequences of 32."""
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return _job(model, torch.randn(4, 32, 64), Tensor.sum)


def vision() -> Job:
    """Return a training step of dbbench's ViT, twelve layers, on 16 images."""
    network = ViT.build("tiny", InputShape(classes=10, channels=1, image_size=28), ViT.Options(), depth=12)
    initialise(network, Streams(0))
    targets = torch.randint(10, (16,))
    return _job(network, torch.randn(16, 1, 28, 28), lambda logits: F.cross_entropy(logits, targets))


def run_plain(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    job.step()
    return {"the step": time.perf_counter() - began, OPENING: 0.0}


def run_ledger(job: Job) -> dict[str, float]:
    """Trace the step and make its account; the table of what is held at the peak is part of it."""
    began = time.perf_counter()
    with Ledger(job.model, job.optimizer) as ledger:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    peak = ledger.peak
    assert sum(row.bytes for row in peak.held) == peak.bytes
    return _parts(began, opened, stepped, closed)


def run_flops(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    counter.get_total_flops()
    return _parts(began, opened, stepped, closed)


def run_memory(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    tracker = MemTracker()
    tracker.track_external(job.model, job.optimizer)
    with tracker:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    assert tracker.get_tracker_snapshot("peak")
    return _parts(began, opened, stepped, closed)


def _parts(began: float, opened: float, stepped: float, closed: float) -> dict[str, float]:
    return {
        OPENING: opened - began + closed - stepped,
        "the step, traced": stepped - opened,
        "account and table": time.perf_counter() - closed,
    }


TOOLS: dict[str, Callable[[Job], dict[str, float]]] = {
    PLAIN: run_plain,
    LEDGER: run_ledger,
    FLOPS: run_flops,
    MEMORY: run_memory,
}


def timed_run(tool: str, job: Job) -> dict[str, float]:
    """Return the seconds of ``job``'s step under ``tool``, in parts."""
    gc.collect()  # what another tool left behind is not this one's to collect
    return TOOLS[tool](job)


def measure(name: str, job: Job, tools: list[str], rounds: int) -> Timed:
    """Run every tool in every round, the order turning by one each time, so that none always follows the same one."""
    for _ in range(2):
        job.step()
    with CountOps() as counted:
        job.step()
    timed = Timed(name, counted.count, {tool: [] for tool in tools}, {tool: [] for tool in tools})
    began = time.perf_counter()
    for number in range(rounds):
        for place in range(len(tools)):
            tool = tools[(number + place) % len(tools)]
            parts = timed_run(tool, job)
            timed.seconds[tool].append(sum(parts.values()))
            timed.opening[tool].append(parts[OPENING])
            if tool == LEDGER:
                for part, value in parts.items():
                    timed.parts.setdefault(part, []).append(value)
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > MODEL_LIMIT_SECONDS:
            break
    whole = "  ".join(f"{tool} {statistics.median(timed.whole(tool)):9.1f}" for tool in tools)
    print(f"{name:>28} {timed.ops:7,} ops, {len(timed.seconds[PLAIN])} rounds, whole µs an op: {whole}", flush=True)
    return timed


def measure_chains(sizes: tuple[int, ...], rounds: int) -> list[Timed]:
    """Measure the chains from small to large; a tool drops out where its next step would pass the limit."""
    found: list[Timed] = []
    tools = list(TOOLS)
    for place, pairs in enumerate(sizes):
        if place > 1:
            growth = pairs / sizes[place - 1]
            tools = [tool for tool in tools if _forecast(found[-2:], tool, growth) < STEP_LIMIT_SECONDS]
        torch.manual_seed(0)
        found.append(measure(f"{pairs} pairs", chain(pairs), tools, rounds))
    return found


def _forecast(last_two: list[Timed], tool: str, growth: float) -> float:
    """Return the seconds of a step ``growth`` times larger than the last, if it goes on as between the last two."""
    before, last = (statistics.median(timed.seconds[tool]) for timed in last_two)
    exponent = math.log(last / before) / math.log(last_two[1].ops / last_two[0].ops)
    return last * growth ** max(1.0, exponent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/ledger"), help="folder of cost.md and cost.png")
    parser.add_argument("--quick", action="store_true", help="three small chains, three rounds: does it run?")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes, rounds = (QUICK_CHAINS, QUICK_ROUNDS) if given.quick else (CHAINS, ROUNDS)
    chains = measure_chains(sizes, rounds)
    torch.manual_seed(0)
    others = [
        measure(name, job(), list(TOOLS), rounds)
        for name, job in (("TransformerEncoder, 6 layers", encoder), ("ViT, 12 layers", vision))
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    draw(chains, others, given.out / "cost")
    text = report(chains, others)
    (given.out / "cost.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
