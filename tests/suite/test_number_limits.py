"""Every number that a suite can hold has a least and a most, and one beyond them is a line with the key and the limit.

The keys are found in the schema's models and in the options of every method, task and network; none is listed here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dbbench import plugins
from dbbench.errors import BadInput
from dbbench.suite.cell import BUDGETS, Budget
from dbbench.suite.schema import Suite, check


def numbers(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, annotated type) of every number in ``model``, and in the models and lists below it."""
    for name, field in model.model_fields.items():
        yield from _numbers_in(field.annotation, list(field.metadata), f"{prefix}{name}")


def _numbers_in(kind: Any, metadata: list[Any], key: str) -> Iterator[tuple[str, Any]]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        inner = [
            item for given in arguments[1:] for item in (given.metadata if isinstance(given, FieldInfo) else [given])
        ]
        yield from _numbers_in(arguments[0], [*metadata, *inner], key)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _numbers_in(argument, metadata, key)
    elif origin is list:
        yield from _numbers_in(arguments[0], [], f"{key}[]")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from numbers(kind, f"{key}.")
    elif kind in (int, float):
        yield key, Annotated[kind, *metadata] if metadata else kind


def everywhere() -> dict[str, Any]:
    found = dict(numbers(Suite))
    for group, names in plugins.BUILT_IN.items():
        for name in names:
            found |= dict(numbers(plugins.find(group, name, group).Options, f"{group}.{name}."))
    return found


NUMBERS = everywhere()


def test_the_sweep_finds_numbers_where_there_are_some() -> None:
    """Broken if the walk goes past unions, lists or models, so that the tests below prove nothing."""
    known = {"batch_size", "network.depth", "optimizer.lr", "budget.value", "seeds[]", "networks.vit.width"}
    known |= {"methods.diffusion_blocks.layers_per_block[]", "tasks.text_folder.vocabulary_size"}
    assert known <= set(NUMBERS)
    assert len(NUMBERS) > 80


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_least_and_a_most(key: str) -> None:
    """Broken if a number is taken that a computer can only hang on, or that no 64 bits hold."""
    adapter = TypeAdapter(NUMBERS[key])
    for beyond in (10**18, 10**19, 2**64) if "float" not in str(NUMBERS[key]) else (1e31, 1e300):
        with pytest.raises(ValidationError, match="less than"):
            adapter.validate_python(beyond)
    with pytest.raises(ValidationError, match="greater than"):
        adapter.validate_python(-(10**18))


SUITE: dict[str, Any] = {
    "suite": "mine",
    "task": {"name": "digits"},
    "network": {"name": "vit"},
    "budget": {"kind": "samples", "value": 64},
    "batch_size": 32,
    "seeds": [0],
    "methods": {"backprop": {}},
}
#: key: (the suite with a number beyond its limit, what the line must say)
BEYOND = {
    "network.depth": ({"network": {"name": "vit", "depth": 999_999_999_999}}, "10000"),
    "batch_size": ({"batch_size": 2**63}, "16777216"),
    "budget.value": ({"budget": {"kind": "seconds", "value": 1e-9}}, "must be 0.001 to 1e+09 for seconds"),
    "seeds[0]": ({"seeds": [2**32]}, "4294967296"),
    "timeout_seconds": ({"timeout_seconds": 1e12}, "1000000000"),
    "evaluations": ({"evaluations": 10**9}, "100000"),
}


@pytest.mark.parametrize("key", BEYOND)
def test_the_line_names_the_key_and_the_limit(key: str) -> None:
    """Broken if a reader is told that something is too large, and neither what nor how large it may be."""
    changes, limit = BEYOND[key]
    with pytest.raises(BadInput) as found:
        check(Suite, SUITE | changes, "mine.yaml")
    assert str(found.value).startswith(f"mine.yaml: {key}: ")
    assert limit in str(found.value)


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_budget_that_is_no_count_has_limits_of_its_own(kind: Any) -> None:
    """Broken if a budget is shorter than any step, so that a training of no steps divides by zero."""
    least, most = BUDGETS[kind]
    for value in (least, most):
        assert Budget(kind=kind, value=value).value == value
    for value in (least / 2, most * 2):
        with pytest.raises(ValidationError, match="must be"):
            Budget(kind=kind, value=value)
