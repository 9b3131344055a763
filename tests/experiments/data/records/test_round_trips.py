"""Whatever is written is read back the same; whatever is damaged is a user's error or a bad record, never another."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from memx.errors import MemxError
from memx.experiments.data.records.read import read_records
from memx.experiments.data.records.record import BadRecord, Record
from memx.experiments.data.records.values import text_of

from .written import FORMATS, write_rows

_QUICK = dict(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
# XML has no control characters, and turns a carriage return into a line feed
_LETTERS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n,;|\"'\\é\u2028\u0085\t")
_TEXT = st.text(_LETTERS, max_size=8).map(lambda text: f"<{text}>")
_NAMES = ["subject", "relation", "object", "more, of; it|"]
_ROW = st.tuples(*[_TEXT] * len(_NAMES)).map(lambda cells: dict(zip(_NAMES, cells, strict=True)))
_ROWS = st.lists(_ROW, min_size=1, max_size=4)


def _read_back(form, rows):
    with tempfile.TemporaryDirectory() as folder:
        records = list(read_records(write_rows(Path(folder), form, rows)))
    assert all(isinstance(record, Record) for record in records)
    # an OpenDocument paragraph joins blanks, as facts do
    clean = text_of if form == ".ods" else str
    found = [{name: clean(value) for name, value in record.values.items()} for record in records]
    assert found == [{name: clean(value) for name, value in row.items()} for row in rows]


def _damaged(form, at, change, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder), form, rows)
        data = path.read_bytes()
        cut = int(at * len(data))
        path.write_bytes(data[:cut] + change + data[cut + len(change) :] if change else data[:cut])
        try:
            for record in read_records(path):
                assert isinstance(record, Record) or record.reason
        except MemxError as error:
            assert "\n" not in error.message and path.name in error.message and error.hint


_CASES = st.tuples(st.floats(0, 1), st.binary(max_size=3), _ROWS)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_are_read_back_the_same(form):
    settings(max_examples=5, **_QUICK)(given(_ROWS)(lambda rows: _read_back(form, rows)))()


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_bytes_are_told_in_one_line(form):
    settings(max_examples=8, **_QUICK)(given(_CASES)(lambda case: _damaged(form, *case)))()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_many_rows_and_many_damages(form):
    settings(max_examples=150, **_QUICK)(given(_ROWS)(lambda rows: _read_back(form, rows)))()
    settings(max_examples=300, **_QUICK)(given(_CASES)(lambda case: _damaged(form, *case)))()


@pytest.mark.parametrize(
    "ending", [".json", ".jsonl", ".csv", ".tsv", ".csv.gz", ".csv.zst", ".xlsx", ".ods", ".parquet"]
)
def test_any_bytes_are_told_in_one_line(ending):
    def read(data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"any{ending}"
            path.write_bytes(data)
            try:
                assert all(isinstance(record, Record | BadRecord) for record in read_records(path))
            except MemxError as error:
                assert "\n" not in error.message and error.hint

    some = st.binary(max_size=60) | st.lists(st.sampled_from('{}[]",:;\n\ta1é\0\\')).map(lambda t: "".join(t).encode())
    settings(max_examples=10, **_QUICK)(given(some)(read))()
