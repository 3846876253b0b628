"""Stage 1, the machine: what it is, what `dbbench doctor` says, and two ceilings, measured."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

from benchmarks.on_gpu.stage import Result, Setting, Stage


def _items(setting: Setting) -> list[str]:
    return ["identity", "doctor", "copy", *(f"product {kind}" for kind in ("fp32", "tf32", "bf16"))]


def run(item: str, setting: Setting) -> Result:
    """Do one item: ``identity``, ``doctor``, ``copy`` or ``product PRECISION``."""
    if item == "identity":
        return _identity(setting)
    if item == "doctor":
        from dbbench.doctor import examine

        return {"findings": [vars(finding) for finding in examine()]}
    return _copy(setting) if item == "copy" else _product(item.split()[1], setting)


def _identity(setting: Setting) -> Result:
    import torch

    from dbbench.harness.provenance import dbbench_version, device_class, git_commit

    found: Result = {
        "device": device_class(setting.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "dbbench": dbbench_version(),
        "git_commit": git_commit(),
    }
    if setting.device == "cuda":
        import pynvml

        from dbbench.measure.device import nvml_process_bytes

        torch.zeros(1, device="cuda")
        pynvml.nvmlInit()
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "driver": str(pynvml.nvmlSystemGetDriverVersion()),
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "nvml_process_bytes": nvml_process_bytes(),
            "reserved_bytes": torch.cuda.memory_reserved(),
        }
    return found


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return the seconds of one call of ``work``, by CUDA events on a GPU."""
    import torch

    if device == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_seconds(work: Callable[[], object], device: str, times: int = 10) -> float:
    """Return the median seconds of ``work``, by CUDA events on a GPU, after three calls that are not counted."""
    for _ in range(3):
        work()
    return statistics.median(seconds_of(work, device) for _ in range(times))


def _copy(setting: Setting) -> Result:
    import torch

    size = 1 << (24 if setting.toy else 32)
    source = torch.zeros(size, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), setting.device)
    return {"bytes": size, "seconds": seconds, "bytes_per_second": 2 * size / seconds}


def _product(precision: str, setting: Setting) -> Result:
    import torch

    side = 512 if setting.toy else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        seconds = median_seconds(lambda: a @ b, setting.device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return {"side": side, "seconds": seconds, "flops_per_second": 2 * side**3 / seconds}


STAGE = Stage("machine", "The machine", 0.1, 60, _items, run)
