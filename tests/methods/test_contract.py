"""The contract of a method: every built-in and a stranger's keep it, and whoever breaks it is told how."""

from __future__ import annotations

from typing import Any

import pytest
from method_steps import VARIANTS, built, plans_of, resolved, task_of
from tiny_cells import make_cell

from dbbench.harness.contract import check_method
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_method_keeps_the_contract(variant: str) -> None:
    """Whatever the harness takes for granted about a method would be false for this one."""
    method, options = VARIANTS[variant]
    check_method(resolved(method, **options).cell)


@pytest.mark.parametrize("variant", ["backprop", "blocks_own_parts"])
@pytest.mark.parametrize("precision", ["bf16", "autocast_bf16"])
def test_the_contract_holds_in_low_precision(variant: str, precision: str) -> None:
    """A method would work in fp32 alone."""
    method, options = VARIANTS[variant]
    check_method(resolved(method, precision=precision, **options).cell)


#: Networks that are not a classifier of images, each at its smallest, and the task that it is for.
ELSEWHERE = {
    "dit": (TaskChoice(name="latents", size=8, classes=5), NetworkChoice(name="dit", size="micro/2", depth=3)),
    "llama": (
        TaskChoice(name="tokens", vocabulary=11, sequence_length=6),
        NetworkChoice(name="llama", size="micro", depth=3, tied=True),
    ),
}


def elsewhere(network: str, method: str, options: dict[str, Any], precision: str = "fp32") -> Cell:
    task, choice = ELSEWHERE[network]
    return make_cell(method, method, task=task, network=choice, batch_size=8, options=options, precision=precision)


@pytest.mark.parametrize("network", ELSEWHERE)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param("checkpointing", {}, marks=pytest.mark.slow),
        ("greedy", {"stages": 2, "ensemble": True}),
        ("diffusion_blocks", {"blocks": 2, "residency": "active"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_method_keeps_the_contract_on_other_tasks(network: str, method: str, options: dict[str, Any]) -> None:
    """A method would work for classes alone, and a suite of text or latents would need a case in the harness."""
    check_method(elsewhere(network, method, options))


@pytest.mark.slow
@pytest.mark.parametrize("network", ELSEWHERE)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast_bf16"])
@pytest.mark.parametrize("variant", [*(v for v in VARIANTS if v != "accumulation"), "blocks_plain"])
def test_every_variant_does_in_every_precision(network: str, precision: str, variant: str) -> None:
    """The same, for all that the quick tests leave out; the toy that accumulates cuts a batch of one tensor itself."""
    method, options = VARIANTS.get(
        variant, ("diffusion_blocks", {"blocks": 2, "output": "plain", "weighting": "none", "overlap": 0.0})
    )
    check_method(elsewhere(network, method, options, precision))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("KeepsGradients", "leaves gradients behind: positions"),
        ("GivesLogits", "is no log-probability"),
        ("SaysTwoThings", "predict_own is not predict's"),
        ("ClaimsTooLittle", "changes what may_change rules out: head."),
        ("ClaimsToBeAbsent", "residents is not what is on the device: head."),
        ("Forgets", "loaded and continued, it ends in other parameters"),
        ("LooksAtItsLoss", "does not run on fake tensors: "),
        ("IgnoresTheSeed", "another seed ends in the same parameters"),
        ("RollsDice", "the same steps again, unwatched, end in other parameters"),
        ("CountsWrong", "reports 1 layers updated, and its block has 3"),
    ],
)
def test_a_broken_promise_is_named(broken: str, complaint: str) -> None:
    """The contract test would pass a method that breaks it, or leave its author guessing."""
    with pytest.raises(AssertionError, match=complaint) as failure:
        check_method(resolved(f"broken_methods:{broken}").cell)
    assert str(failure.value).startswith(f"broken_methods:{broken}: ")
    assert "\n" not in str(failure.value)


def test_a_method_may_say_that_it_has_no_step_on_fake_tensors() -> None:
    """A method that needs numbers could not be checked at all, though it says what an estimate is to say."""
    check_method(resolved("broken_methods:LooksAndSaysSo").cell)


def test_every_method_sees_the_same_batches_in_the_same_order() -> None:
    """A method would owe its accuracy to the samples that it happened to be shown."""
    reference = task_of(resolved("backprop"))
    for method, options in VARIANTS.values():
        what = resolved(method, **options)
        own = what.load_task()
        for index in (0, 1, own.batches_per_epoch + 3):  # type: ignore[attr-defined]
            batch, expected = own.train_batch(index), reference.train_batch(index)
            assert batch.inputs.equal(expected.inputs) and batch.targets.equal(expected.targets)
        trained, loop = built(method, **options)
        steps = [(plan.block, plan.block_step) for plan in plans_of(trained, loop, 12)]
        for block in range(trained.blocks):
            mine = [step for b, step in steps if b == block]
            assert mine == list(range(len(mine)))
