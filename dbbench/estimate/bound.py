"""How long a step takes at least on a device, and whether it fits there.

The bound is the largest of three times, each of work that no implementation can leave out while the device is at its
limit. *Arithmetic*: the step's FLOPs at the peak rate of the cell's precision. float32 products are taken at the
float32 rate, since torch leaves TF32 off by default; under autocast all of them at the bfloat16 rate, though some are
float32's. Of attention under a causal mask half is left out, as a kernel may. *Optimizer*: AdamW reads the parameters
that the step updates, their gradients and both moments, and writes the parameters and the moments; whatever the
last-level cache can keep from one step to the next need not cross the memory's bus. *Transfers*: half of what
residency moves goes each way, and the two ways of a link work at the same time. A step takes longer than this: no
kernel runs at the peak, norms and activations have no FLOPs here, and the three are rarely hidden behind one another.
"""

from __future__ import annotations

from typing import Literal

from dbbench.estimate.devices import DeviceModel
from dbbench.measure.rates import Precision
from dbbench.results.estimate import AllocatorFigures, Bound, Estimate, Fits

_RATES: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "autocast_bf16": "bf16"}
#: AdamW reads four numbers a parameter (itself, its gradient, two moments), and writes three.
_READS, _WRITES = 4, 3


def lower_bound(estimate: Estimate, device: DeviceModel) -> Bound | None:
    """Return the least time of a step on ``device`` in seconds, mean over blocks; None for a cell that failed."""
    row = estimate.record.row
    if row.flops_step is None or estimate.updated_bytes_per_step is None:
        return None
    parts: dict[Literal["arithmetic", "optimizer", "transfers"], float] = {}
    rate, source = device.rate(_RATES[row.precision])
    if rate is not None:
        parts["arithmetic"] = (row.flops_step - (estimate.masked_flops_per_step or 0)) / rate
    traffic = sum(max(0, times * estimate.updated_bytes_per_step - device.cache_bytes) for times in (_READS, _WRITES))
    parts["optimizer"] = traffic / device.bandwidth_bytes_per_second
    parts["transfers"] = (row.host_transfer_bytes_per_step or 0) / 2 / device.link_bytes_per_second
    binds = max(parts, key=lambda part: parts[part])
    missing = None if rate is not None else f"arithmetic is not in it: {source}"
    return Bound(seconds=parts[binds], binds=binds, parts_seconds=dict(parts), missing=missing)


def fits(figures: AllocatorFigures) -> Fits:
    """Say whether a step fits in the capacity under which ``figures`` were simulated."""
    if figures.out_of_memory:
        return "no"
    return "by giving back the cache" if figures.retries else "yes"
