"""``dbbench profile``: a stranger's training step under the ledger, then alone, for what the device says of it.

Three passes, each with everything made anew: one is traced, one is watched by the device's allocator, one is timed. On
fake tensors there is only the first.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from dbbench.errors import BadInput
from dbbench.measure import device as devices
from dbbench.measure import rates
from dbbench.measure.fakes import fake_world
from dbbench.measure.flops import UncountedOps
from dbbench.profile.ledger import Ledger, by_name
from dbbench.profile.target import Target, Training
from dbbench.results.profile import DeviceFigures, Profile

Where = Literal["cpu", "cuda", "fake"]
SEED = 0


@dataclass(frozen=True)
class Order:
    """What to measure: ``warmup`` steps run before ``steps`` are traced, and before ``timed_steps`` are timed.

    ``precision`` picks the device's rate for MFU (by default what the parameters are in); ``peak_flops_per_second`` is
    the user's own rate. ``snapshot`` is where torch's record of CUDA's allocations goes.
    """

    steps: int = 1
    warmup: int = 1
    device: Where = "cpu"
    strict: bool = False
    timed_steps: int = 5
    precision: rates.Precision | None = None
    peak_flops_per_second: float | None = None
    snapshot: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """A profile and its classified events; ``failure`` is the one line of what ended the traced steps early."""

    profile: Profile
    frame: pd.DataFrame
    failure: str | None


def profile_step(reference: str, order: Order) -> Outcome:
    """Profile the training that ``reference`` makes. Raises BadInput where it, or the order, cannot be carried out."""
    if order.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"--device cuda: torch {torch.__version__} sees no CUDA device here (dbbench doctor says more)")
    if order.snapshot is not None and order.device != "cuda":
        raise BadInput(f"--snapshot {order.snapshot}: torch records the history of allocations on CUDA alone")
    target = Target(reference)
    ledger, failure = _traced(target, order)
    profile, frame = ledger.profile(reference), ledger.timeline()
    if failure is None and order.device != "fake":
        profile = profile.model_copy(update={"device_figures": _device_figures(target, order)})
        profile = profile.model_copy(update=_rate_figures(target, order))
    return Outcome(profile, frame, failure)


@contextmanager
def _place(order: Order) -> Iterator[Literal["cpu", "cuda"]]:
    """Seed, and let what is made land on the device; yields the device's name for the callable."""
    torch.manual_seed(SEED)
    with fake_world() if order.device == "fake" else torch.device(order.device):
        yield "cuda" if order.device == "cuda" else "cpu"


def _traced(target: Target, order: Order) -> tuple[Ledger, str | None]:
    """Run the steps under a ledger that is open before anything is made."""
    failure = None
    with _place(order) as name, Ledger(device=name, strict=order.strict) as ledger:
        training = _made(target, name, order.device)
        ledger.follow(training.model, training.optimizer, training.inputs, training.ema)
        try:
            for _ in range(order.warmup):
                training.step()
            for _ in range(order.steps):
                with ledger.step():
                    training.step()
        except UncountedOps as error:
            failure = f"--strict: {error}"
        except Exception as error:
            failure = ledger.ended_early = _one_line(error, order.device)
    return ledger, failure


def _made(target: Target, name: Literal["cpu", "cuda"], device: Where) -> Training:
    try:
        return target.make(name)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{target.reference}: fails with {_one_line(error, device)}") from error


def _one_line(error: Exception, device: str) -> str:
    """Say what went wrong and where in the user's own code; of fake tensors, also what to do."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename)]
    where = f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if device == "fake" and "fake" in f"{type(error).__module__} {error}".lower():
        return f"{line}{where}; a fake tensor has no values: keep .item(), .numpy() and boolean masks out of the step"
    return line + where


def _is_theirs(filename: str) -> bool:
    parts = Path(filename).parts
    return "dbbench" not in parts and "torch" not in parts and not filename.startswith("<")


def _device_figures(target: Target, order: Order) -> DeviceFigures:
    """Run the steps without a ledger, for the allocator's own account."""
    with _recorded(order), devices.watch(order.device) as watch, _place(order) as name:
        training = target.make(name)
        for _ in range(order.warmup):
            training.step()
        for _ in range(order.steps):
            with watch.step():
                training.step()
    peaks = watch.peaks
    figures = DeviceFigures(
        device_peak_bytes=peaks.device_peak_bytes,
        allocated_bytes=peaks.allocated_bytes,
        reserved_bytes=peaks.reserved_bytes,
        nvml_process_peak_bytes=peaks.nvml_process_peak_bytes,
        workspace_op=peaks.peak_op,
    )
    if order.device == "cpu":
        figures.reasons = {
            "allocated_bytes": "the CPU allocator does not round",
            "reserved_bytes": "the CPU allocator keeps no cache",
            "nvml_process_peak_bytes": "no NVIDIA device was used",
        }
    elif peaks.nvml_process_peak_bytes is None:
        figures.reasons = {"nvml_process_peak_bytes": "NVML did not name this process"}
    return figures


@contextmanager
def _recorded(order: Order) -> Iterator[None]:
    """Keep torch's own snapshot of the untraced pass, which its memory_viz page opens."""
    if order.snapshot is None:
        yield
        return
    memory: Any = torch.cuda.memory
    memory._record_memory_history()
    try:
        yield
        order.snapshot.parent.mkdir(parents=True, exist_ok=True)
        memory._dump_snapshot(str(order.snapshot))
    finally:
        memory._record_memory_history(enabled=None)


def _rate_figures(target: Target, order: Order) -> dict[str, Any]:
    """Time the steps, undisturbed, and find the rate that MFU and HFU are shares of."""
    synchronise = torch.cuda.synchronize if order.device == "cuda" else nullcontext
    seconds = []
    with _place(order) as name:
        training = target.make(name)
        for _ in range(order.warmup):
            training.step()
        for _ in range(order.timed_steps):
            synchronise()
            start = time.perf_counter()
            training.step()
            synchronise()
            seconds.append(time.perf_counter() - start)
    peak, source = _peak_rate(order, training)
    return {"seconds_per_step": seconds, "peak_flops_per_second": peak, "peak_flops_source": source}


def _peak_rate(order: Order, training: Training) -> tuple[float | None, str]:
    """Return the FLOP/s that MFU is a share of, and where it is from or why there is none."""
    if order.peak_flops_per_second is not None:
        return order.peak_flops_per_second, "--peak-flops"
    if order.device == "cuda":
        return rates.peak_flops_per_second(torch.cuda.get_device_name(), order.precision or _precision(training))
    return None, "the peak of a CPU is in no table (--peak-flops gives one)"


def _precision(training: Training) -> rates.Precision:
    """Return what the parameters' matrix products run in, unless autocast lowers it: that only the user knows."""
    parameters = (p for model in by_name(training.model).values() for p in model.parameters())
    kind = next((p.dtype for p in parameters), torch.float32)
    if kind in (torch.bfloat16, torch.float16):
        return "bf16" if kind is torch.bfloat16 else "fp16"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "fp32"
