"""The peak by part of the network, of traced passes: bytes against the parameters and the shapes of the network."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from tiny_cells import make_cell
from torch import nn

from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.harness.tracing import Measured, ledger_pass
from dbbench.results.holdings import held_at_peak
from dbbench.results.parts import PARTS, parts_at_peak
from dbbench.suite.cell import NetworkChoice, TaskChoice

BATCH, TOKENS, VOCABULARY = 2, 16, 500
TEXT = TaskChoice(name="tokens", vocabulary=VOCABULARY, sequence_length=TOKENS)
LLAMA = NetworkChoice(name="llama", size="micro")
RECURRENT = NetworkChoice(name="recurrent", size="micro")
CASES: dict[str, tuple[NetworkChoice, dict[str, Any]]] = {
    "backprop": (LLAMA, {"method": "backprop"}),
    "checkpointing": (LLAMA, {"method": "checkpointing", "policy": "every_layer"}),
    "greedy": (LLAMA, {"method": "greedy", "stages": 2}),
    "diffusion_blocks": (LLAMA, {"method": "diffusion_blocks", "blocks": 2}),
    "per_block": (LLAMA, {"method": "diffusion_blocks", "blocks": 2, "shared": "per_block", "residency": "active"}),
    "two_pass": (
        LLAMA,
        {"method": "diffusion_blocks", "blocks": 2, "streams": "two_pass", "clean_weight": 1.0},
    ),
    "recurrent": (RECURRENT, {"method": "backprop"}),
    "recurrent_blocks": (RECURRENT, {"method": "diffusion_blocks", "blocks": 1}),
}


@cache
def traced(name: str, precision: str = "fp32") -> tuple[Resolved, Measured]:
    network, options = CASES[name]
    options = dict(options)
    method = options.pop("method")
    cell = make_cell(name, method, task=TEXT, network=network, batch_size=BATCH, precision=precision, options=options)
    resolved = resolve_cell(cell, cell.suite)
    return resolved, ledger_pass(resolved, resolved.load_task(), fake=True)


#: Each pass takes a second or two; these show one rule each.
QUICK = ("backprop", "greedy", "diffusion_blocks", "recurrent")
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]


def parts_of(name: str, precision: str = "fp32") -> dict[str, dict[str, int]]:
    account = traced(name, precision)[1].account
    return parts_at_peak(account.held, account.peak_phase)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_sum_to_the_peak_role_by_role(name: str) -> None:
    """A byte counted twice, or in no part."""
    account, parts = traced(name)[1].account, parts_of(name)
    assert list(parts) == list(PARTS)
    assert sum(sum(roles.values()) for roles in parts.values()) == account.peak_bytes
    for role, size in account.split.items():
        assert sum(roles.get(role, 0) for roles in parts.values()) == size


@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_the_parameters_of_its_modules(name: str) -> None:
    """What a method's own words before a path hide would be in another part."""
    resolved, _ = traced(name)
    network = resolved.build(resolved.load_task()).network
    parts = parts_of(name)
    heads = 2 if name == "greedy" else 1  # one front is on the device where each block has its own
    halves = 2 if name == "per_block" else 1
    sizes = {part: roles.get("parameters", 0) for part, roles in parts.items()}
    assert sizes["embedding"] == network.embedding.weight.nbytes
    assert sizes["head"] == heads * sum(p.nbytes for p in network.head.parameters())
    assert sizes["layers"] == sum(p.nbytes for p in network.layers.parameters()) // halves
    outer = [p for name in ("prelude", "coda") for p in getattr(network, name, nn.ModuleList()).parameters()]
    assert sizes["outer_layers"] == sum(p.nbytes for p in outer)
    assert sizes["logits"] == 0


@pytest.mark.parametrize(
    ("name", "precision", "times"),
    [
        ("backprop", "fp32", 3),  # log-softmax, its gradient, and that of the likelihood
        ("backprop", "bf16", 3),
        ("greedy", "fp32", 4),  # and the logits that its step still has a name for
        ("greedy", "bf16", 3.5),
        ("checkpointing", "fp32", 0),  # its peak is at a layer's backward, when they are gone
        pytest.param("two_pass", "bf16", 4, marks=pytest.mark.slow),  # two of halves, a cast, and two log-softmaxes
    ],
)
def test_logits_are_as_many_as_the_shapes_say(name: str, precision: str, times: float) -> None:
    """Logits in everything else, or other bytes in theirs, such as the gradient of the head's input."""
    one = BATCH * TOKENS * VOCABULARY * 4
    found = sum(parts_of(name, precision)["logits"].values())
    assert times * one <= found <= times * one + 256 * (times > 0)  # a likelihood a token besides


def test_a_trace_has_the_parts_of_its_record() -> None:
    """Then a record that has its smaller holders summed by role can have its parts from the trace."""
    _, measured = traced("diffusion_blocks")
    peak = held_at_peak(measured.timeline)
    assert parts_at_peak(peak.held, peak.phase) == parts_of("diffusion_blocks")
