"""A trace: what was allocated and freed, by which op, in which phase. It decides nothing about roles.

Columns are parallel lists, so that recording an event costs two appends. Every source (CPU, CUDA, fake tensors)
makes this same form.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Window:
    """A stretch of the trace that is measured: one training step, or one prediction. Event indices, end exclusive."""

    kind: str
    step: int
    block: int
    start: int
    end: int = -1


@dataclass
class Trace:
    """Events in order, and what was learnt of each storage on the way.

    Storages are numbered from 0 by first sight. ``saved`` says why autograd or a checkpoint's frame kept one for a
    backward; ``outlived`` holds those that were alive when the phase that made them ended, with the name in Python
    that held them then (None: not looked for yet); ``before`` the bytes of those that were there before the ledger
    opened; ``unseen`` those that were made since where it could not see, with who kept them. ``left`` counts by kind
    the work that left the process or the dispatcher. Events before ``built`` set things up: on an accelerator the host
    does that, and what is alive then is copied over.
    """

    device: str
    built: int = 0
    # one entry an event
    event_storage: list[int] = field(default_factory=list)
    event_bytes: list[int] = field(default_factory=list)
    event_op: list[int] = field(default_factory=list)
    # one entry an op that allocated or freed
    op_name: list[str] = field(default_factory=list)
    op_phase: list[str] = field(default_factory=list)
    op_module: list[str] = field(default_factory=list)
    # one entry a storage
    birth_op: list[int] = field(default_factory=list)
    # what is known of some storages: (role, name) by identity, strongest so far
    identity: dict[int, tuple[str, str]] = field(default_factory=dict)
    saved: dict[int, str] = field(default_factory=dict)
    casts: set[int] = field(default_factory=set)
    outlived: dict[int, str | None] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)
    unseen: dict[int, str] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
