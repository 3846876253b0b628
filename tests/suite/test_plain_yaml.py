"""The reader of suites against independent readers, and what YAML 1.2 changes."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.errors import BadInput
from dbbench.suite.plain_yaml import parse

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_characters="\x7f"), max_size=12).filter(
    lambda text: all(not 0x7F <= ord(c) <= 0xA0 for c in text)
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
#: PyYAML leaves a text such as 1e5 unquoted, since it is no number in YAML 1.1; a letter in front keeps it a text.
WORDS = TEXT.map(lambda text: "t" + text)


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    def deeper(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        return st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)

    return st.recursive(SCALARS | text, deeper, max_leaves=20)


@settings(deadline=None)
@given(values(TEXT))
def test_json_is_read_as_json_reads_it(value: object) -> None:
    """Broken if a value, its type or its place in a nest is lost; JSON is a part of YAML with its own reader."""
    assert repr(parse(json.dumps(value, ensure_ascii=False), "f")) == repr(value)


@settings(deadline=None)
@given(values(WORDS))
def test_block_style_is_read_back(value: object) -> None:
    """Broken if indented mappings and lists, as people write them, are put together wrongly."""
    text = yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False)
    assert repr(parse(text, "f")) == repr(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E4", 50000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("'3'", "3"),
        ('"true"', "true"),
        ("'~'", "~"),
        ("~", None),
        ("", None),
        ("# only a comment", None),
        ("True", True),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Broken if ``lr: 1e-3`` is a string or ``on`` is true, as in YAML 1.1."""
    assert repr(parse(text, "f")) == repr(value)


@pytest.mark.parametrize("text", [".nan", "-.inf", "9" * 20, "a: *b", "&a 1", "!!str 1", "a: 1\na: 2", "[1", "\t- a"])
def test_what_is_not_plain_is_refused_with_its_place(text: str) -> None:
    """Broken if something other than plain data gets in, or the message does not open with the file and the line."""
    with pytest.raises(BadInput, match=r"^f: line \d+: "):
        parse(text, "f")


def test_thirty_levels_are_read_and_thirty_one_are_not() -> None:
    """Broken if the limit is off by one, or is where a nest of a real suite would reach it."""
    assert parse("[" * 30 + "]" * 30, "f") is not None
    with pytest.raises(BadInput, match="deeper than 30"):
        parse("[" * 31 + "]" * 31, "f")
