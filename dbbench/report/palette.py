"""One colour, hatch, marker and dash per thing drawn, the same in every figure of every report.

The colours are Okabe and Ito's eight ("Color Universal Design", 2008) with Paul Tol's "muted" ones behind them: safe
for the common colour-vision deficiencies. Neighbours in a stack differ in lightness too, and hatches and dashes say
it again, so that a grey print can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dbbench.results.roles import ROLES


class Fill(NamedTuple):
    """How an area is drawn: face colour and hatch ('' for none)."""

    color: str
    hatch: str


class Stroke(NamedTuple):
    """How a line and its points are drawn; the dash is matplotlib's (offset, (on, off, …))."""

    color: str
    marker: str
    dash: tuple[int, tuple[float, ...]]


ROLE_FILLS: dict[str, Fill] = {
    "unseen": Fill("#FFFFFF", "****"),
    "parameters": Fill("#0072B2", ""),
    "gradients": Fill("#F0E442", ""),
    "optimizer": Fill("#56B4E9", "////"),
    "activations": Fill("#D55E00", ""),
    "weight_casts": Fill("#DDCC77", "...."),
    "temporaries": Fill("#009E73", r"\\\\"),
    "buffers": Fill("#DDDDDD", "xxxx"),
    "inputs": Fill("#CC79A7", ""),
    "ema": Fill("#332288", "++++"),
    "retained": Fill("#F5B0A0", "oooo"),
    "other": Fill("#555555", ""),
}

ROLE_NAMES = {role: role.replace("_", " ") for role in ROLES}

#: Backgrounds of a step's phases: light enough for any role to stand on, and ordered in grey.
PHASE_TINTS: dict[str, str] = {
    "setup": "#FFFFFF",
    "swap": "#F7DDEC",
    "forward": "#FFFFFF",
    "backward": "#E3E3E3",
    "recompute": "#FBE6C6",
    "optimizer": "#CFE6F5",
    "inference": "#E2F2EA",
}

FLOP_FILLS: dict[str, Fill] = {
    "forward": Fill("#56B4E9", ""),
    "backward": Fill("#0072B2", ""),
    "recompute": Fill("#E69F00", "////"),
}

#: The way from the ledger's peak to what the driver books on the process; ordered in grey.
STAGE_FILLS: dict[str, Fill] = {
    "ledger peak": Fill("#0072B2", ""),
    "kernel workspace": Fill("#009E73", r"\\\\"),
    "rounding": Fill("#E69F00", ""),
    "cache and fragmentation": Fill("#56B4E9", "////"),
    "context and libraries": Fill("#BBBBBB", ""),
}

_SOLID = (0, ())
_KNOWN = {
    "backprop": Stroke("#000000", "o", _SOLID),
    "checkpointing": Stroke("#0072B2", "s", (0, (5, 1.5))),
    "greedy": Stroke("#009E73", "^", (0, (1, 1))),
    "linear": Stroke("#888888", "X", (0, (1, 2.5))),
}
_DIFFUSION = (
    Stroke("#D55E00", "D", _SOLID),
    Stroke("#E69F00", "d", (0, (4, 1, 1, 1))),
    Stroke("#CC79A7", "P", (0, (3, 1))),
    Stroke("#882255", "v", (0, (6, 1, 1, 1, 1, 1))),
    Stroke("#AA4499", "<", (0, (2, 1))),
    Stroke("#999933", ">", (0, (1, 1.5))),
)
_OTHERS = (
    Stroke("#44AA99", "p", (0, (5, 1, 1, 1))),
    Stroke("#332288", "h", _SOLID),
    Stroke("#117733", "*", (0, (3, 1, 1, 1))),
    Stroke("#661100", "H", (0, (2, 2))),
    Stroke("#6699CC", "8", (0, (4, 2))),
    Stroke("#DDCC77", "v", _SOLID),
    Stroke("#888888", "<", (0, (5, 1.5))),
    Stroke("#AA4466", ">", (0, (1, 1))),
)


def variant_strokes(variants: Iterable[str]) -> dict[str, Stroke]:
    """Return ``{variant: Stroke}``: fixed for the known names, by place in the run for the others."""
    found: dict[str, Stroke] = {}
    diffusion = others = 0
    for variant in variants:
        if variant in _KNOWN:
            found[variant] = _KNOWN[variant]
        elif variant.startswith("diffusion_blocks"):
            found[variant] = _cycled(_DIFFUSION, diffusion)
            diffusion += 1
        else:
            found[variant] = _cycled(_OTHERS, others)
            others += 1
    return found


def _cycled(strokes: tuple[Stroke, ...], i: int) -> Stroke:
    """The i-th stroke; past the last, colours come round again with other markers, so that no two are alike."""
    turn, place = divmod(i, len(strokes))
    return strokes[place]._replace(marker=strokes[(place + turn) % len(strokes)].marker)
