"""The contract of a method: every built-in and a stranger's keep it, and whoever breaks it is told how."""

from __future__ import annotations

import pytest
from method_steps import VARIANTS, built, plans_of, resolved, task_of

from dbbench.harness.contract import check_method


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


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("KeepsGradients", "leaves gradients behind: positions"),
        ("GivesLogits", "is no log-probability"),
        ("ClaimsTooLittle", "changes what may_change rules out: head."),
        ("ClaimsToBeAbsent", "residents is not what is on the device: head."),
        ("Forgets", "loaded and continued, it ends in other parameters"),
        ("LooksAtItsLoss", "does not run on fake tensors: "),
        ("IgnoresTheSeed", "another seed ends in the same parameters"),
        ("RollsDice", "the same steps again, unwatched, end in other parameters"),
        ("CountsWrong", r"reports \(layers, samples\) \(1, 16\), not \(3, 16\)"),
    ],
)
def test_a_broken_promise_is_named(broken: str, complaint: str) -> None:
    """The contract test would pass a method that breaks it, or leave its author guessing."""
    with pytest.raises(AssertionError, match=complaint) as failure:
        check_method(resolved(f"broken_methods:{broken}").cell)
    assert str(failure.value).startswith(f"broken_methods:{broken}: ")
    assert "\n" not in str(failure.value)


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
