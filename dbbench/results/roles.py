"""The vocabulary of a memory ledger: what a byte is for, and when in a step it was made.

``ROLES`` is the order of the columns and of the stack in every figure. The roles partition the live bytes, so
their sum at any instant is the total; the definitions are printed in every report (`dbbench.report.definitions`).
"""

from __future__ import annotations

ROLES = (
    "unseen",
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "weight_casts",
    "temporaries",
    "buffers",
    "inputs",
    "ema",
    "retained",
    "other",
)

#: Roles given by the identity of a storage, strongest first: a storage keeps the strongest one it ever had.
IDENTITY_ROLES = ("parameters", "optimizer", "gradients", "ema", "buffers", "inputs", "other")

#: ``setup`` is everything before the first step; ``swap`` is a residency transfer; ``inference`` a prediction.
PHASES = ("setup", "swap", "forward", "backward", "recompute", "optimizer", "inference")

#: The op of what was made before the ledger opened, and of what was made since where it could not see.
BEFORE, OUT_OF_SIGHT = "(before)", "(out of sight)"
