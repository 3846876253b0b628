"""FLOPs of a step, by phase: matrix products, convolutions and attention, as the field counts them.

A multiplication and an addition are two. The formulas are torch's own registry's, with the two CPU attention kernels
added. Elementwise work, norms, softmax, losses, look-ups and optimizer updates are free by this convention and stand on
`FREE`; anything on neither list is reported by name with its number of calls, never passed over as zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from dbbench.measure import private

#: Packets with no formula that cost no FLOPs by the convention above.
FREE = frozenset(
    """
    _fused_adamw_ _fused_adam_ _fused_sgd_ _foreach_add _foreach_add_ _foreach_addcdiv_ _foreach_addcmul_ _foreach_div
    _foreach_div_ _foreach_lerp_ _foreach_mul _foreach_mul_ _foreach_neg _foreach_norm _foreach_pow _foreach_reciprocal_
    _foreach_sqrt _foreach_sqrt_ _foreach_sub _foreach_sub_ _foreach_clamp_min_ _foreach_copy_
    _local_scalar_dense _log_softmax _log_softmax_backward_data _softmax _softmax_backward_data _to_copy
    _unsafe_view _reshape_alias _reshape_copy _conj _neg_view _has_compatible_shallow_copy_type _efficientzerotensor
    native_layer_norm native_layer_norm_backward native_batch_norm native_batch_norm_backward native_group_norm
    native_group_norm_backward _native_batch_norm_legit _batch_norm_no_update batch_norm_backward
    _batch_norm_with_update _fused_rms_norm _fused_rms_norm_backward
    nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss mse_loss_backward
    gelu gelu_backward silu silu_backward relu relu_ threshold_backward sigmoid sigmoid_backward tanh tanh_backward
    native_dropout native_dropout_backward bernoulli bernoulli_ hardtanh hardtanh_backward leaky_relu
    embedding embedding_dense_backward index index_put_ index_put _index_put_impl_ index_select index_add_ gather
    scatter scatter_ scatter_add_ scatter_add masked_fill masked_fill_ masked_select where take slice_backward
    select_backward slice_scatter select_scatter
    add add_ sub sub_ mul mul_ div div_ neg neg_ pow pow_ exp exp_ log log_ log2 log1p sqrt sqrt_ rsqrt reciprocal abs
    sin cos erf erfinv floor ceil round sign clamp clamp_ clamp_min clamp_max clamp_min_ clamp_max_ maximum minimum
    addcmul addcmul_ addcdiv addcdiv_ lerp lerp_ rsub square remainder fmod special_ndtri special_erfinv
    bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __xor__ logical_and logical_or logical_not
    eq ne lt le gt ge isnan isinf isfinite any all
    sum mean var var_mean std max min amax amin argmax argmin cumsum cumprod logsumexp norm linalg_vector_norm prod
    topk sort searchsorted bucketize histc unique _unique2 unique_consecutive nonzero
    max_pool2d_with_indices max_pool2d_with_indices_backward avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d
    _adaptive_avg_pool2d_backward upsample_nearest2d upsample_bilinear2d constant_pad_nd pad reflection_pad2d
    grid_sampler_2d affine_grid_generator
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_zeros new_ones new_full zeros
    zeros_like zero_ zero ones ones_like full full_like fill_ fill arange linspace eye scalar_tensor tril triu randn
    randn_like rand rand_like randint randperm normal normal_ uniform_ uniform random_ multinomial exponential_
    lift lift_fresh lift_fresh_copy detach detach_ alias clone copy_ copy view t transpose permute expand
    squeeze unsqueeze squeeze_ unsqueeze_ select slice split split_with_sizes chunk unbind cat stack repeat flip
    roll as_strided as_strided_ diagonal unfold movedim contiguous resize_ set_ is_same_size record_stream
    pixel_shuffle view_as_real view_as_complex real imag narrow reshape view_copy _pin_memory is_pinned
    """.split()
)


def _cpu_attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _cpu_attention_backward(grad_out: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


_CPU_ATTENTION: dict[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _cpu_attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_attention_backward,
}


def _shapes(value: Any) -> Any:
    """Put its shape in the place of every tensor."""
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, (list, tuple)):
        return [_shapes(item) for item in value]
    return value


def _of_shapes(formula: Callable[..., int]) -> Formula:
    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        named = {key: _shapes(value) for key, value in kwargs.items()}
        return int(formula(*map(_shapes, args), **named, out_shape=_shapes(out)))

    return counted


def _product_of(first: int) -> Formula:
    """Return the formula of a matrix product (of batches) whose factors are the arguments ``first`` and the next."""

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return 2 * args[first].numel() * args[first + 1].shape[-1]

    return counted


#: The registry's formulas for these walk a tree of one pair of shapes, which takes longer than most products.
_PRODUCTS = {"mm": _product_of(0), "bmm": _product_of(0), "addmm": _product_of(1), "baddbmm": _product_of(1)}


def _of_tensors(formula: Callable[..., int]) -> Formula:
    return lambda args, kwargs, out: int(formula(*args, **kwargs, out_val=out))


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


#: What one call costs: from the op's positional and keyword arguments and its result.
Formula = Callable[[tuple[Any, ...], Mapping[str, Any], Any], int]


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
        if func.namespace == "aten" and name in _PRODUCTS:
            return _PRODUCTS[name]
        known = private.flop_registry.get(packet)
        if known is not None:
            # the wrapper around a formula finds the shapes by a general tree walk
            shaped = getattr(known, "__wrapped__", None)
            return self._noting(func, _of_tensors(known) if shaped is None else _of_shapes(shaped))
        if name in _CPU_ATTENTION:
            return self._noting(func, _of_shapes(_CPU_ATTENTION[name]))
        if name in _SOFTMAX:
            return self._softmax
        if name in FREE or func.namespace == "profiler":
            return None

        def uncounted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
            self.uncounted[f"{func.namespace}.{name}"] += 1
            return 0

        return uncounted

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
