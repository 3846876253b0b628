"""FLOPs of a step, by phase: matrix products, convolutions and attention, as the field counts them.

A multiplication and an addition are two. The formulas are those of `dbbench.measure.flop_formulas`, then of torch's own
registry. Elementwise work, norms, softmax, losses, look-ups and optimizer updates are free by this convention and stand
on `dbbench.measure.free_ops`; anything on neither list is reported by name with its number of calls, never passed over
as zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dbbench.measure import private
from dbbench.measure.flop_formulas import FORMULAS, Formula, of_shapes, of_tensors
from dbbench.measure.free_ops import FREE


class UncountedOps(Exception):
    """A strict ledger met ops that have no FLOP formula and are not free; its text names them with their calls."""


#: The family of kernel that computed attention: they count a backward differently, and keep different tensors.
_ATTENTION = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_fused_attention_overrideable": "overrideable",
}
_SOFTMAX = ("_softmax", "_safe_softmax")


class FlopCount:
    """Sums FLOPs by phase over the window that is open, and names what it could not count.

    ``attention`` holds the families of attention kernel that were called. The math family is not one kernel: it is
    told by a softmax over three or more dimensions, of which heads, queries and keys are the last. ``masked`` are those
    of the FLOPs that a kernel may leave out under a causal mask: less than half of a call's.
    """

    def __init__(self) -> None:
        self.by_phase: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self.attention: set[str] = set()
        self.masked = 0

    def formula(self, func: Any) -> Formula | None:
        """Return the formula of ``func``, None for an op that is free by the convention."""
        packet = func._overloadpacket
        name = packet.__name__
        known = FORMULAS.get(name) if func.namespace == "aten" else None
        if known is not None:
            return self._noting(func, known)
        known = private.flop_registry.get(packet)
        if known is not None:
            # the wrapper around a formula finds the shapes by a general tree walk
            shaped = getattr(known, "__wrapped__", None)
            return self._noting(func, of_tensors(known) if shaped is None else of_shapes(shaped))
        if name in _SOFTMAX:
            return self._softmax
        if name in FREE or func.namespace == "profiler":
            return None

        def uncounted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
            return self.could_not_count(f"{func.namespace}.{name}")

        return uncounted

    def could_not_count(self, op: str) -> int:
        """Note a call of ``op``, whose FLOPs are in no sum."""
        self.uncounted[op] += 1
        return 0

    def _noting(self, func: Any, formula: Formula) -> Formula:
        name = func._overloadpacket.__name__
        family = _ATTENTION.get(name.removesuffix("_backward"))
        if family is None:
            return formula
        arguments = [argument.name for argument in func._schema.arguments]
        place = arguments.index("is_causal") if "is_causal" in arguments else len(arguments)
        forward = name in _ATTENTION

        def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
            if forward:
                self.attention.add(family)
            flops = formula(args, kwargs, out)
            if args[place] if place < len(args) else kwargs.get("is_causal"):
                self.masked += flops // 2
            return flops

        return counted

    def _softmax(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        if args[0].dim() >= 3:
            self.attention.add("math")
        return 0

    def take(self) -> Counter[str]:
        """Return the sums by phase since the last call, and start anew."""
        taken, self.by_phase = self.by_phase, Counter()
        return taken
