"""``dbbench profile``: a stranger's training step under the ledger, then alone, for what the device says of it.

Three passes, each with everything made anew: one is traced, one is watched by the device's allocator, one is timed. On
fake tensors there is only the first, and the CUDA caching allocator is simulated on it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from dbbench.errors import BadInput
from dbbench.foreign import guarded, in_words, place_of
from dbbench.measure import device as devices
from dbbench.measure import rates
from dbbench.measure.allocator import replay
from dbbench.measure.fakes import fake_world, needed_data
from dbbench.measure.flops import UncountedOps
from dbbench.measure.precision import flops_by_precision, rate_of
from dbbench.profile.ledger import Ledger
from dbbench.profile.target import Target, Training
from dbbench.results.profile import DeviceFigures, Profile

Where = Literal["cpu", "cuda", "fake"]
SEED = 0


@dataclass(frozen=True)
class Order:
    """What to measure: ``warmup`` steps run before ``steps`` are traced, and before ``timed_steps`` are timed.

    ``precision`` picks the device's rate for MFU (by default what most FLOPs are in); ``peak_flops_per_second`` is the
    user's own rate. ``snapshot`` is where torch's record of CUDA's allocations goes.
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
    _require_device(order)
    if order.snapshot is not None and order.device != "cuda":
        raise BadInput(f"--snapshot {order.snapshot}: torch records the history of allocations on CUDA alone")
    if order.peak_flops_per_second is not None and order.device == "fake":
        raise BadInput("--peak-flops: fake tensors take no time, so there is no MFU")
    target = Target(reference)
    found = trace_step(target, order)
    if found.failure is not None or order.device == "fake":
        return found
    return replace(found, profile=found.profile.model_copy(update=_untraced(target, order, found.profile)))


def trace_step(target: Target, order: Order) -> Outcome:
    """Take the traced pass alone; on fake tensors the CUDA caching allocator is simulated on it. Raises as above."""
    _require_device(order)
    ledger, failure = _traced(target, order)
    profile, frame = ledger.profile(target.reference), ledger.timeline()
    if failure is None and order.device == "fake":
        profile = profile.model_copy(update={"device_figures": _simulated(ledger)})
    return Outcome(profile, frame, failure)


def _require_device(order: Order) -> None:
    if order.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"--device cuda: torch {torch.__version__} sees no CUDA device here (dbbench doctor says more)")


@contextmanager
def _place(target: Target, order: Order) -> Iterator[Literal["cpu", "cuda"]]:
    """Seed, and let what is made land on the device; yields the device's name for the callable.

    On CUDA, factories make what they make there, unless the callable asks where to train: it may want some on the CPU.
    """
    gc.collect()  # what another pass left in cycles is not to go while this one is measured
    torch.manual_seed(SEED)
    by_default = order.device == "cuda" and not target.takes_device
    with fake_world() if order.device == "fake" else torch.device("cuda") if by_default else nullcontext():
        yield "cuda" if order.device == "cuda" else "cpu"


def _traced(target: Target, order: Order) -> tuple[Ledger, str | None]:
    """Run the steps under a ledger that is open before anything is made."""
    failure = None
    with _place(target, order) as name, Ledger(device=name, strict=order.strict, collect=True) as ledger:
        training = _made(target, name, order.device)
        ledger.trace.built = len(ledger.trace.event_op)
        ledger.follow(training.model, training.optimizer, training.inputs, training.ema)
        ledger.search(training.step, "step", getattr(target.function, "__qualname__", target.reference))
        try:
            with guarded():
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
        with guarded():
            return target.make(name)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{target.reference}: fails with {_one_line(error, device)}") from error


def _one_line(error: BaseException, device: str) -> str:
    """Say what went wrong and where in the user's own code; of fake tensors, also what to do."""
    if device == "fake":
        reason = None
        with suppress(Exception):  # it reads the error's text, which is foreign code as well
            reason = needed_data(error)
        if reason is not None:
            return reason + place_of(error)
    return in_words(error)


def _untraced(target: Target, order: Order, profile: Profile) -> dict[str, Any]:
    """Return the fields that the device and the clock fill in; a pass that fails costs its own and leaves a note."""
    found: dict[str, Any] = {"notes": list(profile.notes)}
    try:
        with guarded():
            found["device_figures"] = _device_figures(target, order)
            found |= _rate_figures(target, order)
    except Exception as error:
        missing = f"a step outside the ledger failed, so what it was to measure is missing: {in_words(error)}"
        found["notes"].append(missing)
    return found


def _device_figures(target: Target, order: Order) -> DeviceFigures:
    """Run the steps without a ledger, for the allocator's own account."""
    with _place(target, order) as name, _recorded(order), devices.watch(order.device) as watch:
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


def _simulated(ledger: Ledger) -> DeviceFigures:
    """Replay the steps through the CUDA caching allocator's rules, from what the callable has made on."""
    peaks = replay(ledger.trace)
    return DeviceFigures(
        simulated=True,
        allocated_bytes=peaks.allocated_bytes,
        reserved_bytes=peaks.reserved_bytes,
        reasons=dict.fromkeys(("device_peak_bytes", "nvml_process_peak_bytes"), "fake tensors are on no device"),
    )


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
    with _place(target, order) as name:
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
    """Return the FLOP/s that MFU is a share of, and where it is from or why there is none; may take a further step."""
    if order.peak_flops_per_second is not None:
        return order.peak_flops_per_second, "--peak-flops"
    if order.device == "cpu":
        return None, "the peak of a CPU is in no table (--peak-flops gives one)"
    device = torch.cuda.get_device_name()
    if order.precision is not None:
        return rates.peak_flops_per_second(device, order.precision)
    return rate_of(device, flops_by_precision(training.step))
