"""The schema of a suite file, and its errors as one line that names the file, the key and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from dbbench.errors import BadInput, did_you_mean
from dbbench.limits import BatchSize, Times
from dbbench.suite.cell import Budget, NetworkChoice, OptimizerChoice, Strict, TaskChoice


def _no_repeats(values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"must not give {value!r} twice")
    return values


#: No dot: a label is one part of a dotted key, and a dot in ``variant`` starts what the grid added to it.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
LABEL_RULE = "must be 1 to 80 letters, digits, '_' and '-'"
Seed = Annotated[int, Field(ge=0, lt=2**32)]
GridValues = Annotated[list[Any], Field(min_length=1, max_length=1000), AfterValidator(_no_repeats)]


class Shared(BaseModel):
    """What a suite gives all its variants, and a variant may override among its options."""

    model_config = Strict
    task: TaskChoice
    network: NetworkChoice
    optimizer: OptimizerChoice = OptimizerChoice()
    precision: Literal["fp32", "bf16", "autocast_bf16"] = "fp32"
    budget: Budget
    batch_size: BatchSize


class Suite(Shared):
    """A suite file.

    ``evaluations`` counts the validation passes spread over the budget; ``final_split`` is where a cell ends (a tuning
    suite never reads the test split) and ``tuning`` says where the trials behind the suite's numbers are; ``grid`` maps
    dotted keys to the values they take; ``methods`` maps a variant's label to its method's options and overrides.
    """

    suite: Label
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_no_repeats)]
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    evaluations: Times = 10
    timeout_seconds: Annotated[float, Field(gt=0, le=1e9)] = 3600
    final_split: Literal["validation", "test"] = "test"
    tuning: str | None = None
    methods: Annotated[dict[Label, dict[str, Any]], Field(min_length=1)]
    grid: Annotated[dict[str, GridValues], Field(min_length=1)] = {}


Model = TypeVar("Model", bound=BaseModel)
NOWHERE: Mapping[str, Iterable[str]] = MappingProxyType({})


def check(
    model: type[Model],
    raw: Mapping[str, Any],
    where: str,
    prefix: str = "",
    also: Iterable[str] = (),
    elsewhere: Mapping[str, Iterable[str]] = NOWHERE,
) -> Model:
    """Return ``raw`` as a ``model``, or raise `BadInput` with the first error.

    ``where`` (the file) opens the line; ``prefix`` is the dotted key under which the file has ``raw``, and
    ``also`` the keys that are valid there beside the model's own, for the nearest name to an unknown one. ``elsewhere``
    has by other dotted keys what is valid there, for a key in the wrong place.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        # A misspelt required key is both missing and unknown; only the second says how to mend it.
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise BadInput(f"{where}: {_one_line(model, errors[0], prefix, also, elsewhere)}{more}") from error


def _one_line(
    model: type[BaseModel],
    error: Mapping[str, Any],
    prefix: str,
    also: Iterable[str],
    elsewhere: Mapping[str, Iterable[str]],
) -> str:
    loc = error["loc"]
    key = _dotted((prefix, *loc))
    if loc and loc[-1] == "[key]":
        key = _dotted((prefix, *loc[:-2]))
        return f"{key}: the label {_shown(error['input'])} {LABEL_RULE}"
    match error["type"]:
        case "extra_forbidden":
            known = _fields_at(model, loc[:-1]) if len(loc) > 1 else [*model.model_fields, *also]
            places = [place for place, keys in elsewhere.items() if len(loc) == 1 and loc[0] in keys]
            hint = f" (did you mean '{places[0]}.{loc[0]}'?)" if places else did_you_mean(str(loc[-1]), known)
            return f"{key}: unknown key{hint}"
        case "missing":
            return f"{key}: is missing"
        case "model_type" | "dict_type":
            return f"{key}: must be a mapping ({{}} for an empty one), not {_shown(error['input'])}"
        case "value_error":
            return f"{key}: {error['msg'].removeprefix('Value error, ')}"
        case "string_pattern_mismatch":
            return f"{key}: {_shown(error['input'])} {LABEL_RULE}"
        case "too_short":
            return f"{key}: must not be empty"
    return f"{key}: {error['msg'].replace('Input should', 'must')}, not {_shown(error['input'])}"


def _dotted(loc: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "").lstrip(".")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Return the names of the fields of the model that ``loc`` leads to, none where it leads into a list or a union."""
    for part in loc:
        annotation = model.model_fields[str(part)].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
