"""Stage 4: estimates held against the device, and the largest batch that `dbbench fit` names, tried.

All estimates are made at once, in processes side by side; then each cell is measured. Cells come in an order that shows
every network and method before a second batch size or precision.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from benchmarks.on_gpu.cells import CHECKED_TOYS, METHODS, cell
from benchmarks.on_gpu.stage import Result, Setting, Stage
from dbbench.suite.cell import Cell

_TOKENS = {"name": "tokens", "sequence_length": 1024}
#: Task, network, two batch sizes, and the precision beside fp32.
_NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int], str]] = {
    "vit_base": ({"name": "images"}, {"name": "vit", "size": "base"}, (64, 128), "autocast_bf16"),
    "dit_base": ({"name": "latents"}, {"name": "dit", "size": "B/2"}, (64, 128), "autocast_bf16"),
    "llama_124m": (_TOKENS, {"name": "llama", "size": "124m"}, (8, 16), "autocast_bf16"),
    "dit_large": ({"name": "latents"}, {"name": "dit", "size": "L/2"}, (32, 64), "autocast_bf16"),
    "llama_1b": (_TOKENS, {"name": "llama", "size": "1.3b"}, (2, 4), "bf16"),
}
_METHODS = ("backprop", "checkpointing", "greedy", "blocks_active")
_FIT_MEMORY_BYTES = 8 << 30
_FIT = "largest batch in 8 GiB"


@cache
def _cells(setting: Setting) -> dict[str, Cell]:
    if setting.toy:
        networks = {name: (task, body, (size, 2 * size), "fp32") for name, (task, body, size) in CHECKED_TOYS.items()}
    else:
        networks = _NETWORKS
    found = {}
    for other_precision, which in ((False, 0), (True, 1), (False, 1), (True, 0)):
        for network, (task, body, batches, precision) in networks.items():
            for method in _METHODS[: 2 if setting.toy else None]:
                if setting.toy and other_precision:
                    continue
                at, batch = precision if other_precision else "fp32", batches[which]
                name = f"{network} {at} {method} batch {batch}"
                found[name] = cell(name, method, task, body, setting, precision=at, batch_size=batch)
    return found


def _items(setting: Setting) -> list[str]:
    names = list(_cells(setting))
    if setting.toy:
        return ["all estimates", *names]
    fits = [f"{_FIT}, {method}" for method in ("backprop", "blocks_active")]
    return ["all estimates", *names[:20], *fits, *names[20:]]


def run(item: str, setting: Setting) -> Result:
    """Make all estimates, measure one cell beside its estimate, or try a largest batch."""
    if item == "all estimates":
        return _estimate_all(setting)
    if item.startswith(_FIT):
        return _try_largest(item.removeprefix(f"{_FIT}, "), setting)
    return _measure(_cells(setting)[item], setting)


def _estimate_all(setting: Setting) -> Result:
    from dbbench.estimate.calibrate import processes_here
    from dbbench.estimate.pool import estimate_cells
    from dbbench.files import write_atomically
    from dbbench.measure.allocator_settings import AllocatorSettings

    cells = list(_cells(setting).values())
    jobs = [(one.model_copy(update={"device": "cpu"}), (AllocatorSettings(),)) for one in cells]
    made = 0
    for index, estimate in estimate_cells(jobs, "on_gpu", processes_here()):
        path = setting.out / "stages" / "estimates" / f"{_file(cells[index])}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, estimate.model_dump_json().encode())
        made += 1
    return {"made": made}


def _file(one: Cell) -> str:
    return one.variant.replace(" ", "_")


def _measure(one: Cell, setting: Setting) -> Result:
    import torch

    from dbbench.estimate.calibrate import calibration_cell
    from dbbench.estimate.devices import model_of_device
    from dbbench.estimate.fake_cell import estimate_cell
    from dbbench.estimate.on_device import measure_cell
    from dbbench.harness.provenance import device_class
    from dbbench.results.estimate import Estimate

    path = setting.out / "stages" / "estimates" / f"{_file(one)}.json"
    if path.exists():
        estimate = Estimate.model_validate_json(path.read_bytes())
    else:
        estimate = estimate_cell(one.model_copy(update={"device": "cpu"}), "on_gpu")
    torch.set_num_threads(one.threads)
    measured = measure_cell(one, "on_gpu")
    if measured.error:
        raise RuntimeError(measured.error)
    model = model_of_device(device_class(setting.device))
    return {"cell": calibration_cell(one, estimate, measured, model).model_dump(mode="json")}


def _try_largest(method: str, setting: Setting) -> Result:
    """Ask `fit` for the largest batch of ViT-B/16 in 8 GiB, then train a step at it and at the next size up."""
    import torch

    from dbbench.estimate.calibrate import processes_here
    from dbbench.estimate.fit import find_largest
    from dbbench.measure.device import nvml_process_bytes

    chosen = cell(f"fit {method}", method, {"name": "images"}, {"name": "vit", "size": "base"}, setting)
    headroom = 512 << 20
    on_cpu = chosen.model_copy(update={"device": "cpu"})
    found = find_largest([on_cpu], "batch", [_FIT_MEMORY_BYTES], headroom, "on_gpu", processes=processes_here())
    (line,) = found.lines
    (edge,) = line.edges
    torch.zeros(1, device="cuda")
    held = nvml_process_bytes()
    context = headroom if held is None else held - torch.cuda.memory_reserved()
    limit = _FIT_MEMORY_BYTES - context
    sizes = [size for size in (edge.largest, edge.following) if size is not None]
    tried = {size: _trains(partial(_rehearse, chosen, size), limit) for size in sizes}
    return {
        "memory_bytes": _FIT_MEMORY_BYTES,
        "headroom_bytes": headroom,
        "context_bytes": context,
        "largest": edge.largest,
        "following": edge.following,
        "largest_fits": tried.get(edge.largest or -1),
        "following_fits": tried.get(edge.following or -1),
    }


def _rehearse(chosen: Cell, batch_size: int) -> None:
    from dbbench.harness.resolve import resolve_cell
    from dbbench.harness.tracing import rehearsal

    resolved = resolve_cell(chosen.model_copy(update={"batch_size": batch_size}), "on_gpu")
    task = resolved.load_task()
    method = resolved.build(task)
    for plan, _ in rehearsal(method):
        method.step(task.train_batch(plan.block_step), plan)


def _trains(work: partial[None], limit_bytes: int) -> bool:
    """Say whether ``work`` runs while the allocator may hold no more than ``limit_bytes``."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total)
    try:
        work()
        torch.cuda.synchronize()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


STAGE = Stage("estimates", "Estimates beside the device", 0.28, 90, _items, run)
assert set(_METHODS) <= set(METHODS)
