"""YAML text: what is read, and what is refused with one line, whatever the text is."""

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from memx.yaml_text import BadYaml, parse_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


def test_texts_are_what_was_written():
    read = parse_yaml("{no: on, 1: 010, 1:30: 1:30, day: 2020-01-01, a: 1e-3, b: 1_000, c: -2.5, d: ~, e: true, f: }")
    assert read == {
        "no": "on",
        "1": "010",
        "1:30": "1:30",
        "day": "2020-01-01",
        "a": "1e-3",
        "b": 1000,
        "c": -2.5,
        "d": None,
        "e": True,
        "f": None,
    }


def test_merge_keys_and_aliases_are_read():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' occurs twice"),
        ("a:\n  b: 1\n  c: 2\n  'b': 1", 4, "the key 'b' occurs twice"),
        ("a: {<<: {x: 1}, <<: {x: 2}}", 1, "the key '<<' occurs twice"),
        (BOMB, 5, "more than 100,000 keys and values"),
        (CHAIN, 50, "nested deeper than 50 levels"),
        ("[" * 500, 1, "nested deeper than 50 levels"),
        ("- " * 500, 1, "nested deeper than 50 levels"),
        ("&a [*a]", 1, "inside its own anchor"),
        ("a: *b", 1, "undefined alias"),
        ("a: " + "9" * 5000, 1, "an integer of more than 400 digits"),
        ('a: 1\nb: "\\ud800"', 2, "a lone surrogate"),
        ("a: 1\nb: \x00", 2, "a character that YAML does not allow"),
        ("a: 1\nb: \udcff", 2, "a character that YAML does not allow"),
        (b"a: 1\nb: caf\xe9", 2, "not UTF-8"),
        ("a: b".encode("utf-16"), 1, "not UTF-8"),
        ("x: !!python/object/apply:os.system [ls]", 1, "the tag !!python/object/apply:os.system is not supported"),
        ("x: !mine 3", 1, "the tag !mine is not supported"),
        ("x: !!int abc", 1, "the tag !!int is not supported"),
        ("a: 1\n---\nb: 2", 2, "a second document begins"),
        ("? [a]\n: 1", 1, "a key that is a list or a section"),
        ("a: [1", 1, "expected ',' or ']', but got the end"),
        ("a:\n\tb: 1", 2, "cannot start any token"),
        ("x" * 300_000, 0, "more than 200,000 characters"),
    ],
)
def test_what_is_refused_names_the_line(text, line, reason):
    with pytest.raises(BadYaml) as error:
        parse_yaml(text)
    assert error.value.line == line and reason in error.value.reason and len(error.value.reason) < 150


def test_what_is_written_is_read_as_it_was():
    value = {
        "a": "1e3",
        "b": "010",
        "no": "no",
        "c": 1e-5,
        "d": 1e16,
        "e": "1:30",
        "f": "2020-01-01",
        "g": "",
        "h": None,
        "i": ["~", "null", "true", True, "0x1", 16, "=", "<<", "1.5e3", "-.5", "+.inf", "1_0"],
    }
    assert parse_yaml(yaml.safe_dump(value)) == value


SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(alphabet="0123456789eE.+-_:~<=xtrueno \n'\"#é😀", max_size=8)
VALUES = st.dictionaries(TEXTS, SCALARS | TEXTS | st.lists(SCALARS | TEXTS, max_size=3), max_size=4)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(VALUES)
def test_any_value_is_read_as_pyyaml_wrote_it(value):
    assert parse_yaml(yaml.safe_dump(value)) == value


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.text(alphabet="ab:-[]{},&*!|>'\"%?#\n\t 01.e~<", max_size=40) | st.binary(max_size=20))
def test_any_text_is_read_or_refused(text):
    started = time.process_time()
    try:
        parse_yaml(text)
    except BadYaml as error:
        assert error.reason and "\n" not in error.place_and_reason
    assert time.process_time() - started < 5
