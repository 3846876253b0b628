"""The tensors of torch's distributed wrappers that no module and no optimizer holds.

DDP keeps its gradient buckets in C++, where only their sizes can be asked. FSDP2 (``fully_shard``) gathers parameters
into tensors of its own, and sends through buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dbbench.measure import private

BUCKET, GATHERED = "DDP bucket", "gathered by FSDP"


def bucket_sizes(module: nn.Module) -> set[int]:
    """Return the bytes of each gradient bucket of ``module``, an empty set unless it is DDP."""
    if not isinstance(module, DistributedDataParallel):
        return set()
    return private.ddp_bucket_bytes(module)


def is_sharded(module: nn.Module) -> bool:
    """Tell whether ``fully_shard`` was applied to ``module``."""
    return private.fsdp_groups(module) is not None


def gathered(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of the whole parameters that stand in for ``module``'s shards while it runs."""
    for group in private.fsdp_groups(module) or ():
        for shard in group.fsdp_params:
            whole = getattr(shard, "_unsharded_param", None)
            if isinstance(whole, nn.Parameter):
                yield _name(path, GATHERED), whole


def tensors_of_sharded(module: nn.Module, path: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (role, name, tensor) of what FSDP2 holds for ``module``."""
    for group in private.fsdp_groups(module) or ():
        for shard in group.fsdp_params:
            for tensor in shard.all_gather_outputs:
                yield "parameters", _name(path, GATHERED), tensor
            whole, summed = getattr(shard, "_unsharded_param", None), shard.unsharded_accumulated_grad
            if isinstance(whole, Tensor):
                yield "parameters", _name(path, GATHERED), whole
                if whole.grad is not None:
                    yield "gradients", _name(path, GATHERED), whole.grad
            if isinstance(summed, Tensor):
                yield "gradients", _name(path, GATHERED), summed


def allocators(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name of a buffer, object whose ``allocate`` returns it) of what FSDP2 sends through for ``module``."""
    for group in private.fsdp_groups(module) or ():
        for purpose, allocator in private.fsdp_allocators(group):
            yield f"FSDP's {purpose} buffer", allocator


def _name(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
