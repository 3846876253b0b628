"""The names under which a storage is found, asked where it is held and nowhere else."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.measure import private
from dbbench.measure.holders import NOBODY, find_holders

CACHE: dict[int, Any] = {}
SIZE = 1024  # elements; smaller ones are not looked for everywhere


def address(tensor: Tensor) -> int:
    return private.storage_key(tensor)


def name_of(key: int) -> str:
    """Return the holder of the storage at ``key``, as seen from the function that calls this."""
    return find_holders({key: (0, SIZE * 4)}, sys._getframe(1)).get(0, NOBODY)


def failing(given: Tensor) -> None:
    doubled = given * 2
    CACHE[0] = address(doubled)
    raise ValueError("no more")


def test_an_exception_holds_what_its_functions_held() -> None:
    """A list of failures, whose tracebacks keep whole graphs alive, would be nobody's."""
    failures = []
    try:
        failing(torch.ones(SIZE))
    except ValueError as error:
        failures.append(error)
    assert name_of(CACHE.pop(0)) == (
        "local 'failures[0].__traceback__.failing.doubled' in test_an_exception_holds_what_its_functions_held"
    )


def test_a_graph_kept_by_an_exception_is_named_after_it() -> None:
    """Of a skipped batch only the logits would have a holder, not the activations behind them."""
    weight = torch.ones(SIZE, requires_grad=True)

    def logits_of_it() -> int:
        squares = weight.square()
        kept = squares.exp().sin()
        CACHE[0] = address(kept.grad_fn._saved_self)  # type: ignore[union-attr]
        raise ValueError(kept.shape)

    try:
        logits_of_it()
    except ValueError as error:
        failure = error
    where = "test_a_graph_kept_by_an_exception_is_named_after_it"
    assert name_of(CACHE.pop(0)) == f"graph of local 'failure.__traceback__.logits_of_it.kept' in {where}"
    assert failure.args


def test_a_cache_of_a_module_is_found() -> None:
    """A dictionary at the top of a file, the oldest leak there is, would be nobody's."""
    CACHE[3] = {"features": [torch.ones(SIZE)]}
    found = name_of(address(CACHE[3]["features"][0]))
    assert found == f"global 'CACHE[3][features][0]' in {__name__}"
    CACHE.clear()


def test_a_module_that_runs_no_function_is_searched_too() -> None:
    """Features that a helper's file keeps between steps would be nobody's."""
    import toy_methods

    toy_methods.seen = [torch.ones(SIZE)]  # type: ignore[attr-defined]
    found = name_of(address(toy_methods.seen[0]))  # type: ignore[attr-defined]
    del toy_methods.seen  # type: ignore[attr-defined]
    assert found == "global 'seen[0]' in toy_methods"


def test_what_a_function_was_given_goes_by_its_callers_name() -> None:
    """A ledger opened in a helper would name the helper as the holder of all that it was given."""
    mine = [torch.ones(SIZE)]

    def helper(theirs: list[Tensor]) -> str:
        inner = theirs
        return name_of(address(inner[0]))

    assert helper(mine) == "local 'mine[0]' in test_what_a_function_was_given_goes_by_its_callers_name"


def remembering(outputs: list[Tensor]) -> Any:
    return lambda module, given, output: outputs.append(output)


def test_hooks_and_attributes_of_a_module_are_found() -> None:
    """The module that keeps an output would not be named."""
    net = nn.Sequential(nn.Identity(), nn.Identity())
    net[0].last = torch.ones(SIZE)  # type: ignore[assignment]
    net[1].register_forward_hook(remembering([]))
    key = address(net(torch.ones(SIZE)))
    found = name_of(address(net[0].last)), name_of(key)  # type: ignore[arg-type]
    where = "test_hooks_and_attributes_of_a_module_are_found"
    assert found == (f"local 'net.0.last' in {where}", f"local 'hook of net.1.<outputs>[0]' in {where}")
