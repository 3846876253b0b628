"""What a call of an op costs in FLOPs: a multiplication and an addition are two, and elementwise work is free.

Each formula takes the op's positional and keyword arguments and its result. torch's own registry
(`torch.utils.flop_counter`) is used for what is not here; its backward of a convolution takes every group for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

#: What one call costs: from the op's positional and keyword arguments and its result.
Formula = Callable[[tuple[Any, ...], Mapping[str, Any], Any], int]


def of_shapes(formula: Callable[..., int]) -> Formula:
    """Return a formula of the registry's that wants shapes in the place of tensors."""

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        named = {key: _shapes(value) for key, value in kwargs.items()}
        return int(formula(*map(_shapes, args), **named, out_shape=_shapes(out)))

    return counted


def of_tensors(formula: Callable[..., int]) -> Formula:
    """Return a formula of the registry's that wants the tensors themselves."""
    return lambda args, kwargs, out: int(formula(*args, **kwargs, out_val=out))


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, (list, tuple)):
        return [_shapes(item) for item in value]
    return value


# -- products ---------------------------------------------------------------------------------------------------------


def _product_of(first: int) -> Formula:
    """A matrix product (of batches, or with a vector) whose factors are the arguments ``first`` and the next."""

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        second = args[first + 1]
        columns: int = second.shape[-1] if second.dim() > 1 else 1
        return 2 * args[first].numel() * columns

    return counted


def _outer(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    return 2 * args[1].numel() * args[2].numel()


def _grouped_product(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """A product of each group of rows (or of the contracted dimension) with a matrix of its own: every row once."""
    left, right = args[:2]
    if left.dim() == 2 and right.dim() == 2:  # the groups divide the contracted dimension
        return 2 * left.numel() * int(right.shape[-1])
    return 2 * left.numel() * int(right.shape[-1]) if left.dim() == 2 else 2 * int(out.numel()) * int(left.shape[-1])


def _trilinear(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """Three tensors multiplied and summed, as the kernel does it: two of them first, then the result and the third."""
    sizes, summed = [], set(args[6])
    dimensions = args[0].dim() + len(args[3])
    for tensor, expanded in zip(args[:3], args[3:6], strict=True):
        given = iter(tensor.shape)
        sizes.append([1 if place in expanded else next(given) for place in range(dimensions)])
    both = [max(a, b) for a, b in zip(*sizes[:2], strict=True)]
    # what only the first two have is summed before the third comes in
    left = [1 if d in summed and d in args[5] else size for d, size in enumerate(both)]
    return 2 * math.prod(both) + 2 * math.prod(max(a, b) for a, b in zip(left, sizes[2], strict=True))


def _distances(rows: int) -> Formula:
    """All distances between the rows of two matrices, the arguments ``rows`` and the next: as their product."""

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return 2 * args[rows].numel() * int(args[rows + 1].shape[-2])

    return counted


def _distances_within(rows: int) -> Formula:
    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return args[rows].numel() * (int(args[rows].shape[0]) - 1)

    return counted


# -- convolutions -----------------------------------------------------------------------------------------------------


def _convolved(weight: Tensor, given: Tensor, out: Tensor, transposed: bool) -> int:
    """Every output, or of a transposed one every input, meets one filter: a group's input channels times its taps."""
    return 2 * (given if transposed else out).numel() * weight[0].numel()


def _convolution(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    transposed = args[6] if len(args) > 6 else kwargs.get("transposed", False)
    return _convolved(args[1], args[0], out, transposed is True)


def _convolution_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """As many for the input's gradient, and for the weight's, as for the forward."""
    gradient, given, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    return (bool(mask[0]) + bool(mask[1])) * _convolved(weight, given, gradient, transposed)


# -- recurrent layers -------------------------------------------------------------------------------------------------


def _matrices(weights: Sequence[Any]) -> int:
    return sum(weight.numel() for weight in weights if isinstance(weight, Tensor) and weight.dim() == 2)


def _steps(given: Tensor) -> int:
    return given.numel() // int(given.shape[-1])


def _mkldnn_rnn(times: int) -> Formula:
    """A layer in one direction: each position meets both matrices of the gates; a backward does that twice."""
    return lambda args, kwargs, out: times * 2 * _steps(args[0]) * _matrices(args[1:5])


def _cudnn_rnn(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    return 2 * _steps(args[0]) * _matrices(args[1])


def _cudnn_rnn_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    mask = args[-1] if isinstance(args[-1], (list, tuple)) else kwargs["output_mask"]
    return (1 + bool(mask[3])) * _cudnn_rnn(args, kwargs, out)


# -- attention --------------------------------------------------------------------------------------------------------


def _cpu_attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _cpu_attention_backward(grad_out: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


def _whole_attention(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """torch's fast path of MultiheadAttention: query, key, value, width, heads, weights and biases in and out."""
    query, key, width = args[0], args[1], int(args[3])
    return 2 * (query.numel() + key.numel() + args[2].numel() + query.numel()) * width + _scores(query, key, width)


def _encoder_layer(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """torch's fast path of TransformerEncoderLayer: four matrices, and attention over every position."""
    source, width = args[0], int(args[1])
    return 2 * _steps(source) * _matrices(args) + _scores(source, source, width)


def _scores(query: Tensor, key: Tensor, width: int) -> int:
    return 4 * _steps(query) * int(key.shape[-2]) * width


# -- transforms and linear algebra ------------------------------------------------------------------------------------


def _fourier(factor: float, of: Callable[[tuple[Any, ...], Any], Tensor]) -> Formula:
    """The customary 5 N log₂ N for a complex transform of N points, half of it for a real one."""

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        tensor = of(args, out)
        points = math.prod(int(tensor.shape[dim]) for dim in args[1])
        return round(factor * tensor.numel() * math.log2(points)) if points > 1 else 0

    return counted


def _square(cubes: float, right_side: int | None = None) -> Formula:
    """Work on each n × n matrix of a batch: ``cubes`` n³, and 2 n² for a column of the ``right_side``.

    Counts of Golub and Van Loan, *Matrix Computations*.
    """

    def counted(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        size = int(args[0].shape[-1])
        solved = 0 if right_side is None else 2 * args[right_side].numel() * size
        return round(cubes * args[0].numel() * size) + solved

    return counted


def _solve_by(times: int, factor: int, right_side: int) -> Formula:
    """Each column of a right side against a factor that is there already: ``times`` n² for each triangle."""
    return lambda args, kwargs, out: times * args[right_side].numel() * int(args[factor].shape[-1])


def _qr(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """Householder's: 2mn² − 2n³/3 for R (m ≥ n), and as many again where Q is formed."""
    forms_q = (args[1] if len(args) > 1 else "reduced") != "r"
    return (1 + forms_q) * _householder(args, kwargs, out)


def _householder(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    columns, rows = sorted(map(int, args[0].shape[-2:]))
    batch = args[0].numel() // max(rows * columns, 1)
    return round(batch * (2 * rows * columns**2 - 2 * columns**3 / 3))


#: By the op's packet in ``aten``. They come before the registry's: a product's walks a tree of one pair of shapes,
#: which takes longer than most products.
FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm", "_scaled_mm_v2"), _product_of(0)),
    **dict.fromkeys(
        ("addmm", "addmm_", "baddbmm", "baddbmm_", "addmv", "addmv_", "addbmm", "addbmm_", "_addmm_activation"),
        _product_of(1),
    ),
    **dict.fromkeys(("addr", "addr_"), _outer),
    "_grouped_mm": _grouped_product,
    "_scaled_grouped_mm": _grouped_product,
    "_trilinear": _trilinear,
    "_cdist_forward": _distances(0),
    "_cdist_backward": _distances(1),
    "_euclidean_dist": _distances(0),
    "_pdist_forward": _distances_within(0),
    "_pdist_backward": _distances_within(1),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "convolution_backward": _convolution_backward,
    "mkldnn_rnn_layer": _mkldnn_rnn(1),
    "mkldnn_rnn_layer_backward": _mkldnn_rnn(2),
    **dict.fromkeys(("_cudnn_rnn", "miopen_rnn"), _cudnn_rnn),
    **dict.fromkeys(("_cudnn_rnn_backward", "miopen_rnn_backward"), _cudnn_rnn_backward),
    "_scaled_dot_product_flash_attention_for_cpu": of_shapes(_cpu_attention),
    "_scaled_dot_product_flash_attention_for_cpu_backward": of_shapes(_cpu_attention_backward),
    "_native_multi_head_attention": _whole_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "_fft_c2c": _fourier(5.0, lambda args, out: args[0]),
    "_fft_r2c": _fourier(2.5, lambda args, out: args[0]),
    "_fft_c2r": _fourier(2.5, lambda args, out: out),
    **dict.fromkeys(("linalg_cholesky_ex", "cholesky"), _square(1 / 3)),
    **dict.fromkeys(("linalg_lu_factor_ex", "linalg_lu", "_linalg_det", "_linalg_slogdet"), _square(2 / 3)),
    "cholesky_inverse": _square(2 / 3),
    "cholesky_solve": _solve_by(2, factor=1, right_side=0),
    "triangular_solve": _solve_by(1, factor=1, right_side=0),
    "linalg_inv_ex": _square(2.0),
    "_linalg_solve_ex": _square(2 / 3, right_side=1),
    "linalg_solve_triangular": _solve_by(1, factor=0, right_side=1),
    "linalg_lu_solve": _solve_by(2, factor=0, right_side=2),
    "linalg_qr": _qr,
    "geqrf": _householder,
}
