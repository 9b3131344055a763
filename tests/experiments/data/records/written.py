"""Writes rows of text as files of every format that records are read from."""

import csv
import gzip
import io
import json
import zipfile
from xml.sax.saxutils import escape

import pyarrow
import pyarrow.parquet
import zstandard

FORMATS = [
    ".json",
    ".data.json",
    ".lines.json",
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".csv",
    ".csv.gz",
    ".semicolon.csv",
]
FORMATS += [".tsv", ".tsv.zst", ".parquet", ".xlsx", ".ods"]
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_OFFICE = "http://schemas.openxmlformats.org"


def write_rows(folder, form, rows):
    """Write rows, dictionaries of one set of keys, in a format; returns the path."""
    path = folder / f"rows{form}"
    if form == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    if form in (".xlsx", ".ods"):
        (write_xlsx if form == ".xlsx" else write_ods)(path, cells)
        return path
    data = _text(form, rows, cells).encode()
    if form.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    if form.endswith(".zst"):
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def _text(form, rows, cells):
    if form == ".json":
        return json.dumps(rows, indent=1, ensure_ascii=False)
    if form == ".data.json":
        return json.dumps({"version": [1.0], "data": rows, "of": {"a": 1}})
    if ".json" in form:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = io.StringIO()
    delimiter = "\t" if ".tsv" in form else ";" if "semicolon" in form else ","
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(cells)
    return file.getvalue()


def write_xlsx(path, cells, sheets=("Sheet1",)):
    """Write a workbook: rows of text, numbers, true and false; a text as '=1' is written as a number with format 14."""
    types = "".join(f'<Default Extension="{one}" ContentType="application/xml"/>' for one in ("xml",))
    relation = f"{_OFFICE}/officeDocument/2006/relationships"
    names = list(enumerate(sheets, start=1))
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_OFFICE}/package/2006/content-types">{types}</Types>',
        "_rels/.rels": _relations([("rId1", f"{relation}/officeDocument", "xl/workbook.xml")]),
        "xl/_rels/workbook.xml.rels": _relations(
            [(f"rId{i}", f"{relation}/worksheet", f"worksheets/sheet{i}.xml") for i, _ in names]
            + [("rId99", f"{relation}/styles", "styles.xml")]
        ),
        "xl/workbook.xml": f'<workbook xmlns="{_OFFICE}/spreadsheetml/2006/main" xmlns:r="{relation}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{i}" r:id="rId{i}"/>' for i, name in names)
        + "</sheets></workbook>",
        "xl/styles.xml": f'<styleSheet xmlns="{_OFFICE}/spreadsheetml/2006/main"><cellXfs count="2">'
        '<xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
    }
    sheet = "".join(
        f'<row r="{r}">{"".join(_xlsx_cell(f"{_letters(c)}{r}", value) for c, value in enumerate(row))}</row>'
        for r, row in enumerate(cells, start=1)
    )
    for i, _ in names:
        parts[f"xl/worksheets/sheet{i}.xml"] = (
            f'<worksheet xmlns="{_OFFICE}/spreadsheetml/2006/main"><sheetData>{sheet}</sheetData></worksheet>'
        )
    _zip(path, parts)


def _relations(entries):
    return (
        f'<Relationships xmlns="{_OFFICE}/package/2006/relationships">'
        + "".join(f'<Relationship Id="{key}" Type="{kind}" Target="{target}"/>' for key, kind, target in entries)
        + "</Relationships>"
    )


def _letters(column):
    return chr(ord("A") + column)


def _xlsx_cell(at, value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{at}" t="b"><v>{value:d}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{at}"><v>{value}</v></c>'
    if value.startswith("="):  # a date
        return f'<c r="{at}" s="1"><v>{value[1:]}</v></c>'
    if value.startswith("#"):  # an error of a formula
        return f'<c r="{at}" t="e"><v>{value}</v></c>'
    return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def write_ods(path, cells):
    """Write an OpenDocument sheet of text."""
    names = "office:1.0 table:1.0 text:1.0".split()
    spaces = " ".join(
        f'xmlns:{name.partition(":")[0]}="urn:oasis:names:tc:opendocument:xmlns:{name}"' for name in names
    )
    rows = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{escape(cell)}</text:p></table:table-cell>'
            for cell in row
        )
        + "</table:table-row>"
        for row in cells
    )
    content = f"<office:document-content {spaces}><office:body><office:spreadsheet>"
    content += f'<table:table table:name="T">{rows}</table:table>'
    content += "</office:spreadsheet></office:body></office:document-content>"
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
    manifest += f'<m:file-entry m:full-path="/" m:media-type="{kind}"/></m:manifest>'
    _zip(path, {"mimetype": kind, "META-INF/manifest.xml": manifest, "content.xml": content})


def _zip(path, parts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), (_XML if text.startswith("<") else "") + text)
