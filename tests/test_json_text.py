"""JSON text -> values, or one plain reason; never an exception of Python's own."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memx.json_text import BadJson, parse_json

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    _SCALARS | _TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON (there is no text)"),
        ('{"a": 1', "not JSON (Expecting ',' delimiter at character 8)"),
        ("[1] 2", "not JSON (Extra data at character 5)"),
        ('["a', "not JSON (Unterminated string at character 2)"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
        (f'{{"{"k" * 100}": 1, "{"k" * 100}": 2}}', f"the key '{'k' * 60}…' occurs twice"),
        ("[NaN]", "NaN is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("1e999", "1e999 is too large a number"),
        ("9" * 401, "an integer of more than 400 digits"),
        ("9" * 10_000, "an integer of more than 400 digits"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ("[" * 500 + "]" * 500, "nested deeper than 100 levels"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        ('{"a":' * 100_000, "nested deeper than 100 levels"),
        ('["\\ud800"]', "a lone surrogate (half of a character)"),
        ('{"\\uDFFF": 1}', "a lone surrogate (half of a character)"),
        ('"\ud800"', "a lone surrogate (half of a character)"),
        (b'"a\nb": "\xff"', "not UTF-8"),
    ],
)
def test_what_is_refused_has_a_plain_reason(text, reason):
    with pytest.raises(BadJson) as refused:
        parse_json(text)
    assert refused.value.reason == str(refused.value) == reason


def test_a_refusal_names_the_line_where_it_is_known():
    for text in ('{"a": 1,\n\n"b" 2}', b'["a",\n"b",\n"\xe9"]'):
        with pytest.raises(BadJson) as refused:
            parse_json(text)
        assert refused.value.line == 3


def test_what_is_json_is_read():
    text = b'\xef\xbb\xbf{"a": [1, -2.5, true, null, "\\ud83d\\ude00"]}'
    assert parse_json(text) == {"a": [1, -2.5, True, None, "😀"]}
    assert parse_json("[" * 100 + "]" * 100) is not None
    assert parse_json("[" + ", ".join(["[[]]"] * 500) + "]") == [[[]]] * 500
    assert parse_json("9" * 400) == int("9" * 400)
    assert parse_json('"a\\\\ud800"') == "a\\ud800"


def test_old_metrics_may_hold_numbers_that_are_not_finite():
    nan, infinite, large = parse_json("[NaN, -Infinity, 1e999]", finite=False)
    assert nan != nan and infinite == -float("inf") and large == float("inf")


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(_VALUES)
def test_every_value_that_is_written_is_read_back(value):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=40) | _TEXT | st.lists(st.sampled_from('{}[]",:\\ud8e1-NaN ')).map("".join))
def test_any_text_is_read_or_refused(text):
    try:
        parse_json(text)
    except BadJson as refused:
        assert refused.reason
