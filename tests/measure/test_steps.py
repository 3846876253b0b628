"""The ledger against the allocator, op by op, over every kind of step in `benchmarks.ledger_steps`.

If one of these fails, the ledger cannot be believed for loops of that kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch

from benchmarks.ledger_steps import LIMITS, STEPS, Kind, truth
from benchmarks.ledger_steps.catalogue import BATCH, LENGTH, WIDTH
from benchmarks.ledger_steps.truth import Run
from dbbench.results.roles import ROLES

FLOAT, HALF, NUMBER = 4, 2, 8

#: Kinds on which torch itself takes another way under any dispatch mode, and so another amount of memory.
OTHER_WAY_UNDER_A_MODE = {
    "views": "the backward of indexing is out of place",
    "sparse_embedding": "sparse gradients are cloned, not stolen",
    "sparse_embedding_bag": "sparse gradients are cloned, not stolen",
}

#: Autocast drops its casts of the weights all at once, in the order of a hash map of their addresses.
FREED_IN_ANY_ORDER = {"autocast_bf16", "autocast_accumulation"}

#: DDP's reduction ends in a thread of gloo, which lets go of a tensor of this size sooner or later.
HELD_BY_GLOO_BYTES = {"ddp": 512, "ddp_no_sync": 512}

#: Rarely it holds a whole bucket a while longer, which only adds: of so many runs the least is compared.
RUNS_ON_GLOO = 5


def _kinds() -> list[pytest.param]:  # type: ignore[valid-type]
    marks = {name: [pytest.mark.xfail(reason=reason)] for name, reason in LIMITS.items()}
    return [pytest.param(kind, id=name, marks=marks.get(name, ())) for name, kind in STEPS.items()]


every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in STEPS.items()])
every_kind_to_the_byte = pytest.mark.parametrize("kind", _kinds())


@pytest.fixture(autouse=True)
def _quiet_and_single() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _settled(run: Callable[[Kind], Run], name: str) -> Run:
    runs = [run(STEPS[name]) for _ in range(RUNS_ON_GLOO if name in HELD_BY_GLOO_BYTES else 1)]
    return min(runs, key=lambda run: (len(run.differences), run.allocator_peak_bytes))


@cache
def alone(name: str) -> Run:
    return _settled(truth.alone, name)


@cache
def watched(name: str) -> Run:
    return _settled(truth.watched, name)


@cache
def compared(name: str) -> Run:
    return _settled(truth.compared, name)


@every_kind_to_the_byte
def test_ledger_equals_the_allocator_at_the_end_of_every_op(kind: Kind) -> None:
    """An allocation or a free is missed or invented, at the peak or anywhere else in the step."""
    run = compared(kind.name)
    assert run.ops >= 1  # a fast path is few ops, and only the main thread's are compared
    assert run.differences == []


@every_kind_to_the_byte
def test_peak_is_the_allocators_to_the_byte_but_for_a_named_ops_workspace(kind: Kind) -> None:
    """The residue between the two peaks has a part that nobody can name."""
    run = compared(kind.name)
    assert run.visible_peak_bytes == run.ledger_peak_bytes
    if run.residue_bytes or run.workspace_bytes:
        assert run.peak_op is not None
        assert run.bytes_under_peak_op is not None
        assert run.allocator_peak_bytes == run.bytes_under_peak_op + run.workspace_bytes
        assert 0 <= run.residue_bytes <= run.workspace_bytes
    else:
        assert run.allocator_peak_bytes == run.ledger_peak_bytes


@every_kind
def test_roles_and_holdings_sum_to_the_peak(kind: Kind) -> None:
    """A byte at the peak has no role, or two."""
    account = watched(kind.name).account
    assert account is not None
    assert sum(account.split[role] for role in ROLES) == account.peak_bytes > 0
    assert sum(held.bytes for held in account.held) == account.peak_bytes
    assert all(account.own_peaks[role] >= account.split[role] >= 0 for role in ROLES)


@every_kind
def test_a_second_run_gives_identical_figures(kind: Kind) -> None:
    """A figure depends on something other than the step."""
    first, second = watched(kind.name), truth.watched(kind)
    assert first.account == second.account
    frames = [run.ledger.timeline() for run in (first, second)]
    if kind.name in FREED_IN_ANY_ORDER:
        frames = [frame.sort_values(["storage", "bytes"], kind="stable", ignore_index=True) for frame in frames]
    assert frames[0].equals(frames[1])


@every_kind
def test_training_ends_with_the_same_bits(kind: Kind) -> None:
    """Watching a step changes what it learns."""
    before, after = alone(kind.name).outcome, watched(kind.name).outcome
    assert len(before) == len(after) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_kind
def test_the_op_marks_change_nothing(kind: Kind) -> None:
    """The comparison compares another step than the one that is watched without it."""
    assert compared(kind.name).ledger_peak_bytes == watched(kind.name).ledger_peak_bytes
    # a mode more makes a Python number into a tensor once more
    difference = compared(kind.name).allocator_peak_bytes - watched(kind.name).allocator_peak_bytes
    assert difference in (0, NUMBER) or abs(difference) <= HELD_BY_GLOO_BYTES.get(kind.name, 0)


@every_kind
def test_the_real_peak_is_not_disturbed(kind: Kind) -> None:
    """The ledger keeps, or makes, memory of its own on the device that it watches."""
    bare, seen = alone(kind.name).allocator_peak_bytes, watched(kind.name).allocator_peak_bytes
    if abs(bare - seen) > HELD_BY_GLOO_BYTES.get(kind.name, 0):
        # what torch does under any mode at all, and no byte more
        assert seen == truth.under_idle_mode(kind).allocator_peak_bytes
        assert kind.name in OTHER_WAY_UNDER_A_MODE or 0 < seen - bare <= NUMBER


def test_the_catalogue_is_large_and_opens_ledgers_early_and_late() -> None:
    """The claim of a general ledger rests on a handful of loops, or on one way of opening it."""
    assert len(STEPS) >= 32
    assert min(sum(kind.opens == opens for kind in STEPS.values()) for opens in ("before", "after")) >= 10


# -- roles by hand count --------------------------------------------------------------------------------------------

BLOCK = 2 * WIDTH + 4 * WIDTH * (WIDTH + 1) + WIDTH * (4 * WIDTH + 1)
HEAD = 10 * (WIDTH + 1)
STACK = 3 * BLOCK + HEAD
TENSORS = 3 * 6 + 2  # each with a step counter of four bytes under Adam and its kin
TRIPLE = 3 * (4 * WIDTH * WIDTH * 2) + 10 * WIDTH  # matrices of the linear maps
BIASES = 3 * (4 * WIDTH + WIDTH) + 10
BATCH_BYTES = BATCH * WIDTH * FLOAT + BATCH * 8  # features, and labels of eight bytes

OWN_PEAKS: dict[str, dict[str, int]] = {
    "mlp": {
        "parameters": STACK * FLOAT,
        "gradients": STACK * FLOAT,
        "optimizer": 2 * STACK * FLOAT + TENSORS * FLOAT,
        "inputs": BATCH_BYTES,
        "buffers": 0,
        "ema": 0,
        "weight_casts": 0,
    },
    "shared_depth": {"parameters": (BLOCK + HEAD) * FLOAT, "gradients": (BLOCK + HEAD) * FLOAT},
    "tied_weights": {"parameters": (50 * WIDTH + BLOCK) * FLOAT, "inputs": BATCH * LENGTH * 8},
    "conv_batchnorm": {"buffers": 2 * (8 + 16) * FLOAT + 2 * 8},  # mean, variance, and a count of batches
    "sgd_momentum": {"optimizer": STACK * FLOAT},
    "adagrad": {"optimizer": STACK * FLOAT + TENSORS * FLOAT},
    "rmsprop": {"optimizer": 3 * STACK * FLOAT + TENSORS * FLOAT},
    "adamw_loop": {"optimizer": 3 * STACK * FLOAT + TENSORS * FLOAT},
    "adamw_fused_zeroed": {"gradients": STACK * FLOAT, "optimizer": 2 * STACK * FLOAT + TENSORS * FLOAT},
    "accumulation": {"gradients": STACK * FLOAT, "inputs": 4 * BATCH_BYTES},
    "hand_written_optimizer": {"optimizer": STACK * FLOAT, "gradients": STACK * FLOAT},
    "frozen_stages": {"parameters": STACK * FLOAT, "gradients": (BLOCK + HEAD) * FLOAT},
    "ema_copy": {"ema": STACK * FLOAT, "parameters": STACK * FLOAT},
    "gan": {"parameters": (2 * BLOCK + WIDTH * (WIDTH + 1) + WIDTH + 1) * FLOAT},
    "local_losses": {"parameters": 3 * (BLOCK + HEAD) * FLOAT, "gradients": (BLOCK + HEAD) * FLOAT},
    "autocast_bf16": {"weight_casts": (TRIPLE + BIASES) * HALF, "parameters": STACK * FLOAT},
    "bf16_model": {"parameters": STACK * HALF, "gradients": STACK * HALF, "weight_casts": 0},
    "master_weights": {"parameters": STACK * HALF, "optimizer": 3 * STACK * FLOAT + TENSORS * FLOAT},
    "offloaded_parameters": {"parameters": STACK * FLOAT, "gradients": STACK * FLOAT},
    "resized_storages": {"parameters": (BLOCK + HEAD) * FLOAT},
    "subclass_parameter": {"parameters": 2 * HEAD * FLOAT, "optimizer": 2 * HEAD * FLOAT},
    "subclass_parameter_opened_late": {"parameters": 2 * HEAD * FLOAT, "gradients": 2 * HEAD * FLOAT},
    # a random-number state for each checkpoint, and the one that a recompute puts aside
    "checkpoint_module": {"other": (3 + 1) * 5056},
    "checkpoint_without_rng": {"other": 0},
}


@pytest.mark.parametrize("name", OWN_PEAKS)
def test_own_peaks_are_the_hand_count(name: str) -> None:
    """A role is confused with another in this kind of loop."""
    account = watched(name).account
    assert account is not None
    assert {role: account.own_peaks[role] for role in OWN_PEAKS[name]} == OWN_PEAKS[name]


def test_an_update_inside_the_backward_never_holds_all_gradients() -> None:
    """Gradients that go as soon as they are used would be booked as if they stayed, or as nothing."""
    account = watched("update_in_backward").account
    assert account is not None
    largest = 4 * WIDTH * WIDTH * FLOAT
    assert largest <= account.own_peaks["gradients"] <= largest + 4 * WIDTH * FLOAT
    assert account.own_peaks["optimizer"] == 2 * STACK * FLOAT + TENSORS * FLOAT


def test_foreach_optimizer_shows_as_temporaries_of_its_phase() -> None:
    """The cost of an optimizer's implementation would be blamed on the model."""
    account = watched("adamw_foreach").account
    assert account is not None
    assert account.peak_phase == "optimizer"
    assert account.split["temporaries"] >= STACK * FLOAT


def test_a_step_that_fails_is_accounted_until_then() -> None:
    """An out-of-memory error could not be explained."""
    for name in ("exception", "exception_in_forward"):
        run = watched(name)
        assert run.account is not None
        assert run.account.own_peaks["activations"] > 0
        assert run.account.own_peaks["optimizer"] == 0


def test_what_existed_before_is_in_the_total() -> None:
    """A late ledger would leave out what its step never touches."""
    account = watched("made_before").account
    assert account is not None
    corpus = (300 + 40 * 5 + 1000 + WIDTH) * FLOAT
    assert account.split["retained"] + account.split["other"] >= corpus


def test_leaked_graphs_are_retained_not_activations() -> None:
    """A list of losses would look like honest activations."""
    leak, honest = watched("leaked_losses").account, watched("mlp").account
    assert leak is not None and honest is not None
    one_graph = honest.own_peaks["activations"]
    assert leak.split["retained"] >= 2 * one_graph or leak.own_peaks["activations"] == 3 * one_graph
