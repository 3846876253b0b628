"""Which part of a network the bytes at a peak belong to: its layers, what stands before and behind them, or none.

    parts_at_peak(record.held_at_peak, record.row.peak_phase)["logits"]    # {"activations": 41472, …}

A block of layers is what a block-wise method divides; embedding, head and logits are there whole, however many blocks
there are. A line belongs to the first word of its module's path that names a part: a method may put words before it
(``fronts.0.shell.embedding``), and greedy's auxiliary heads are heads. Every line belongs to exactly one part, so the
parts sum to the peak as the lines do.

*logits* are no module: they are what the last product of a head gives, and, where no module runs, what a softmax and a
negative log-likelihood make of it, their gradients and a cast of the same size included. A temporary product in a head
is its output in a forward, and in a backward what it hands down, which is the head's.
"""

from __future__ import annotations

from collections.abc import Sequence

from dbbench.results.record import Held

#: In the order in which they are shown. ``outer_layers`` are layers that run outside of what is cut into blocks.
PARTS = ("layers", "outer_layers", "embedding", "head", "logits", "rest")
#: The module of a line that sums up smaller ones, behind the part's name and a dot but in ``rest``.
EVERYTHING_ELSE = "(everything else)"

_NAMED = {
    "layers": "layers",
    "prelude": "outer_layers",
    "coda": "outer_layers",
    "outer_layers": "outer_layers",
    **dict.fromkeys(("embedding", "patches", "labels", "targets"), "embedding"),
    **dict.fromkeys(("head", "heads"), "head"),
    "logits": "logits",
}
#: What a storage is when nothing but the op that made it says so.
_MADE = ("activations", "temporaries", "retained")
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_BEFORE_THE_LAST = ("modulation", "norm")  # what a head has besides the product that gives its output
_OF_THE_LOSS = (
    *("_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data"),
    *("nll_loss_forward", "nll_loss_backward"),
)
_CAST = "_to_copy"


def parts_at_peak(held: Sequence[Held], phase: str | None) -> dict[str, dict[str, int]]:
    """Return ``{part: {role: bytes}}`` of what is ``held`` at a peak in ``phase``; every part of `PARTS` is there."""
    found: dict[str, dict[str, int]] = {part: {} for part in PARTS}
    for line, part in zip(held, part_of_each(held, phase), strict=True):
        found[part][line.role] = found[part].get(line.role, 0) + line.bytes
    return found


def part_of_each(held: Sequence[Held], phase: str | None) -> list[str]:
    """Return the part of each line of ``held``, in its order; ``phase`` is the peak's."""
    sizes = {each for line in held if tells_logits(line) for each in _each(line)}
    sizes |= {size // 2 for size in sizes}  # logits in half precision
    return [_part(line, phase, sizes) for line in held]


def tells_logits(line: Held) -> bool:
    """Whether the line is what a loss makes of logits: by its size a cast of them is known."""
    return not line.module and _op(line) in _OF_THE_LOSS


def _part(line: Held, phase: str | None, logits_bytes: set[int]) -> str:
    words = line.module.split(".")
    named = next((_NAMED[word] for word in words if word in _NAMED), "rest")
    if line.role not in _MADE:
        return named
    if named == "head":
        last = _op(line) in _PRODUCTS and not any(word in _BEFORE_THE_LAST for word in words)
        return "logits" if last and (line.role != "temporaries" or phase == "forward") else "head"
    if not line.module:
        cast = _op(line) == _CAST and any(each in logits_bytes for each in _each(line))
        return "logits" if cast or tells_logits(line) else "rest"
    return named


def _op(line: Held) -> str:
    return line.op.removeprefix("aten.")


def _each(line: Held) -> tuple[int, ...]:
    """Return the bytes of one of the line's storages, nothing where they differ."""
    size, over = divmod(line.bytes, max(line.storages, 1))
    return () if over else (size,)
