"""Reads the plain part of YAML that a suite needs, and refuses everything else with one line.

Values are built from the parser's events without recursion or constructors, so that no file, however nested or
tagged, can do more than end in a message. Scalars follow YAML 1.2: under 1.1, ``1e-3`` is a string and ``on`` is true.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from dbbench.errors import BadInput

MAX_DEPTH = 30
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
#: Above 64 bits a number is a mistake, and Python refuses to read thousands of digits at all.
_MAX_DIGITS = 19


def parse(text: str, where: str) -> Any:
    """Return the one document in ``text`` as dicts, lists, strings, numbers, booleans and ``None``.

    ``where`` opens the message of the `BadInput` raised for what is not plain YAML: a second document, a tag, an
    anchor or alias, a repeated or non-string key, a number that is not finite, nesting deeper than ``MAX_DEPTH``.
    An empty text gives ``None``.
    """
    builder = _Builder(where)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        if "'\\t'" in problem:
            problem = "a tab where YAML takes spaces only"
        raise BadInput(f"{where}: line {mark.line + 1 if mark else '?'}: {problem}") from error
    except yaml.reader.ReaderError as error:
        raise BadInput(f"{where}: character {error.position}: {error.reason}") from error
    return builder.document


@dataclass
class _Open:
    """A mapping or a list whose end has not come yet; ``key`` is the mapping's key that waits for its value."""

    values: dict[str, Any] | list[Any]
    key: str | None = None


@dataclass
class _Builder:
    where: str
    document: Any = None
    documents: int = 0
    open: list[_Open] = field(default_factory=list)

    def fail(self, event: yaml.Event, problem: str) -> BadInput:
        line = event.start_mark.line + 1 if event.start_mark else "?"
        return BadInput(f"{self.where}: line {line}: {problem}")

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.fail(event, "a second document starts here; a suite is one document")
        elif isinstance(event, yaml.CollectionEndEvent):
            self.add(event, self.open.pop().values)
        elif isinstance(event, yaml.NodeEvent):
            self.refuse_references(event)
            if isinstance(event, yaml.ScalarEvent):
                self.take_scalar(event)
            else:
                self.start(event, {} if isinstance(event, yaml.MappingStartEvent) else [])

    def refuse_references(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            raise self.fail(event, f"anchors and aliases ('{event.anchor}') are not allowed in a suite")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.fail(event, f"the tag '{tag}' is not allowed; a suite holds plain values")

    def awaits_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].values, dict) and self.open[-1].key is None

    def start(self, event: yaml.NodeEvent, values: dict[str, Any] | list[Any]) -> None:
        if self.awaits_key():
            raise self.fail(event, "a key must be a string, not a mapping or a list")
        if len(self.open) == MAX_DEPTH:
            raise self.fail(event, f"nested deeper than {MAX_DEPTH} levels")
        self.open.append(_Open(values))

    def take_scalar(self, event: yaml.ScalarEvent) -> None:
        if _SURROGATE.search(event.value):
            raise self.fail(event, "half a character (a surrogate) is no text")
        value = self.scalar(event) if event.implicit[0] else event.value
        if not self.awaits_key():
            self.add(event, value)
            return
        if not isinstance(value, str):
            raise self.fail(event, f"the key '{event.value}' is not a string; quote it")
        if value in self.open[-1].values:
            raise self.fail(event, f"the key '{value}' is given twice")
        self.open[-1].key = value

    def add(self, event: yaml.Event, value: Any) -> None:
        if not self.open:
            self.document = value
            return
        parent = self.open[-1]
        if isinstance(parent.values, list):
            parent.values.append(value)
        elif parent.key is not None:
            parent.values[parent.key] = value
            parent.key = None

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        """Return what an unquoted word stands for."""
        text = event.value
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text.lstrip("-+0")) > _MAX_DIGITS:
                raise self.fail(event, f"the number {text[:12]}... is too large")
            return int(text)
        if _NOT_FINITE.fullmatch(text):
            raise self.fail(event, f"'{text}' is not a finite number")
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self.fail(event, f"the number {text[:12]} is too large")
            return number
        return text
