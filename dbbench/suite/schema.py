"""The schema of a suite file, and its errors as one line that names the file, the key and the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from dbbench.errors import BadInput, did_you_mean
from dbbench.suite.cell import Budget, NetworkChoice, OptimizerChoice, Strict, TaskChoice


def _no_repeats(values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"must not give {value!r} twice")
    return values


#: No dot: a label is one part of a dotted key, and a dot in ``variant`` starts what the grid added to it.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=80)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Shared(BaseModel):
    """What a suite gives all its variants, and a variant may override among its options."""

    model_config = Strict
    network: NetworkChoice
    optimizer: OptimizerChoice = OptimizerChoice()
    precision: Literal["fp32", "bf16", "autocast_bf16"] = "fp32"
    budget: Budget
    batch_size: Annotated[int, Field(ge=1)]


class Suite(Shared):
    """A suite file. ``evaluations`` counts the validation passes spread over the budget; ``grid`` maps dotted keys
    to the values they take; ``methods`` maps a variant's label to its method's options and its own overrides."""

    suite: Label
    task: TaskChoice
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_no_repeats)]
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    evaluations: Annotated[int, Field(ge=1)] = 10
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600
    methods: Annotated[dict[Label, dict[str, Any]], Field(min_length=1)]
    grid: dict[str, Annotated[list[Any], Field(min_length=1, max_length=1000), AfterValidator(_no_repeats)]] = {}


Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], raw: Mapping[str, Any], where: str, prefix: str = "") -> Model:
    """Return ``raw`` as a ``model``, or raise `BadInput` with the first error.

    ``where`` (the file) opens the line, and ``prefix`` the key in it.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        # A misspelt required key is both missing and unknown; only the second says how to mend it.
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise BadInput(f"{where}: {prefix}{_one_line(model, errors[0])}{more}") from error


def _one_line(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    loc = error["loc"]
    if loc and loc[-1] == "[key]":
        return f"{_dotted(loc[:-2])}: the label {_shown(error['input'])} may hold only letters, digits, '_' and '-'"
    match error["type"]:
        case "extra_forbidden":
            return f"{_dotted(loc)}: unknown key{did_you_mean(str(loc[-1]), _fields_at(model, loc[:-1]))}"
        case "missing":
            return f"{_dotted(loc)}: is missing"
        case "model_type" | "dict_type":
            return f"{_dotted(loc)}: must be a mapping ({{}} for an empty one), not {_shown(error['input'])}"
        case "value_error":
            return f"{_dotted(loc)}: {error['msg'].removeprefix('Value error, ')}"
        case "too_short":
            return f"{_dotted(loc)}: must not be empty"
    return f"{_dotted(loc)}: {error['msg'].replace('Input should', 'must')}, not {_shown(error['input'])}"


def _dotted(loc: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Return the names of the fields of the model that ``loc`` leads to."""
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)
