"""``dbbench doctor``: what this machine can measure, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Literal

import dbbench
from dbbench.errors import BadInput

MIB = 1 << 20

#: Libraries no run does without: module, what pip calls it.
NEEDED = {
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "matplotlib": "matplotlib",
    "rich": "rich",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
}
#: Libraries some runs use: module, what pip calls it, what for.
EXTRAS = (
    ("sklearn", "scikit-learn", "the digits task (extra test)"),
    ("scipy", "scipy", "tests of the sampler against another solver (extra test)"),
    ("datasets", "datasets", "the image_dataset task (extra data)"),
    ("tensorboard", "tensorboard", "showing the traces of run --trace (extra trace)"),
    ("torch_tb_profiler", "torch-tb-profiler", "TensorBoard's view of those traces (extra trace)"),
    ("pkg_resources", "setuptools<81", "what torch-tb-profiler imports (extra trace)"),
    ("pytest", "pytest", "the tests (extra test)"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``broken`` stops the default suite, ``missing`` narrows what can be measured, and
    ``note`` is a fact that is neither good nor bad. ``remedy`` is a command or advice."""

    state: Literal["ok", "note", "missing", "broken"]
    what: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the software, the machine, the devices, the extras, the embedded data and torch's private symbols."""
    findings = [*_software(), *_machine()]
    if find_spec("torch") is not None:
        findings += [*_devices(), *_private_symbols()]
    return [*findings, *_data(), *_extras()]


def _software() -> Iterator[Finding]:
    yield Finding("ok", "dbbench", dbbench.__version__)
    yield Finding("ok", "python", platform.python_version())
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("broken", "torch", f"cannot be imported: {error}", "pip install torch (README: CPU or CUDA)")
    else:
        yield _torch_range(torch.__version__)
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
            yield Finding("ok", package, version(package))
        except ImportError as error:
            yield Finding("broken", package, f"cannot be imported: {error}", f"pip install {package}")


def _torch_range(installed: str) -> Finding:
    try:
        requirement = next(line for line in requires("dbbench") or [] if re.match(r"torch\b(?!-)", line))
    except (PackageNotFoundError, StopIteration):
        return Finding("note", "torch", f"{installed}; dbbench is not installed, so the tested range is unknown")
    bounds = re.findall(r"(>=|<)\s*([0-9.]+)", requirement)
    inside = all((_number(installed) >= _number(bound)) == (sign == ">=") for sign, bound in bounds)
    tested = ", ".join(sign + bound for sign, bound in sorted(bounds, reverse=True))
    if inside:
        return Finding("ok", "torch", f"{installed}, in the tested range {tested}")
    return Finding("note", "torch", f"{installed}, outside the tested range {tested}", f"pip install 'torch{tested}'")


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release.partition("+")[0])[:2])


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("note", "cores", f"{usable} of {os.cpu_count()} usable; a cell on CPU uses the suite's 'threads'")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(name) * page_bytes // MIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        yield Finding("note", "memory", f"{total:,} MiB, {free:,} MiB of it free")
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if name in os.environ:
            yield Finding("note", name, os.environ[name], "unset it, unless it is part of what you measure")


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"cuda:{index}", f"{about.name}, {about.total_memory // MIB:,} MiB")
    elif torch.version.cuda is None:
        yield Finding("missing", "CUDA", "this torch is built for CPU: no device peaks", "README: torch for CUDA")
    else:
        found = f"torch is built for CUDA {torch.version.cuda} but sees no device"
        yield Finding("missing", "CUDA", found, "nvidia-smi shows what the driver sees")
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except ImportError as error:
        yield Finding("missing", "NVML", f"cannot be imported: {error}", "pip install nvidia-ml-py")
    except pynvml.NVMLError as error:
        yield Finding("missing", "NVML", f"{error}; energy and process memory stay empty", "install NVIDIA's driver")
    else:
        yield Finding("ok", "NVML", f"{count} device(s); energy and process memory can be measured")


def _private_symbols() -> Iterator[Finding]:
    from dbbench.measure.self_test import self_test

    for symbol, works, purpose in self_test():
        remedy = "" if works else "install a torch of the tested range"
        yield Finding("ok" if works else "broken", symbol, purpose, remedy)


def _data() -> Iterator[Finding]:
    from dbbench.data import load_images

    try:
        images = load_images("fashion_mnist_10k", where="embedded data")
    except BadInput as error:
        yield Finding("broken", "embedded data", str(error), "reinstall dbbench")
    else:
        found = f"{images.name} is intact: {len(images.train_labels):,} + {len(images.test_labels):,} images"
        yield Finding("ok", "embedded data", found)


def _extras() -> Iterator[Finding]:
    for module, package, purpose in EXTRAS:
        if find_spec(module) is None:
            yield Finding("missing", package, f"for {purpose}", f"pip install {shlex.quote(package)}")
        else:
            yield Finding("ok", package, f"for {purpose}")
