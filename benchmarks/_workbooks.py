"""Workbooks as spreadsheet programs save them, as small as they can be."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_OPEN_XML = "http://schemas.openxmlformats.org"
_RELATION = f"{_OPEN_XML}/officeDocument/2006/relationships"
_TYPE = "application/vnd.openxmlformats"
_OASIS = "urn:oasis:names:tc:opendocument:xmlns"
Rows = Sequence[Sequence[Any]]


def xlsx(sheets: Mapping[str, Rows], merged: Sequence[str] = (), hidden: Sequence[str] = ()) -> bytes:
    """A workbook of these sheets, of which some are hidden; in each the ranges that are `merged`, such as ``A1:C1``."""
    listed, relations, files = "", "", {}
    spans = "".join(f'<mergeCell ref="{span}"/>' for span in merged)
    for number, (name, rows) in enumerate(sheets.items(), start=1):
        state = ' state="hidden"' if name in hidden else ""
        listed += f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"{state}/>'
        relations += _relation(f"r{number}", "worksheet", f"worksheets/sheet{number}.xml")
        body = "".join(
            "".join(_xlsx_cell(f"{chr(65 + place)}{row}", each) for place, each in enumerate(cells)).join(
                [f'<row r="{row}">', "</row>"]
            )
            for row, cells in enumerate(rows, start=1)
        )
        files[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{_OPEN_XML}/spreadsheetml/2006/main"><sheetData>{body}</sheetData>'
            f"{f'<mergeCells>{spans}</mergeCells>' if spans else ''}</worksheet>"
        )
    files["[Content_Types].xml"] = (
        f'<Types xmlns="{_OPEN_XML}/package/2006/content-types">'
        f'<Default Extension="rels" ContentType="{_TYPE}-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="{_TYPE}-officedocument.spreadsheetml.sheet.main+xml"/></Types>'
    )
    files["_rels/.rels"] = _relations(_relation("r", "officeDocument", "xl/workbook.xml"))
    files["xl/_rels/workbook.xml.rels"] = _relations(relations)
    files["xl/workbook.xml"] = (
        f'<workbook xmlns="{_OPEN_XML}/spreadsheetml/2006/main" xmlns:r="{_RELATION}">'
        f"<sheets>{listed}</sheets></workbook>"
    )
    return _zipped(files)


def ods(rows: Rows) -> bytes:
    """An OpenDocument spreadsheet of one sheet."""
    body = "".join(f"<table:table-row>{''.join(map(_ods_cell, row))}</table:table-row>" for row in rows)
    names = " ".join(f'xmlns:{name}="{_OASIS}:{name}:1.0"' for name in ("office", "table", "text"))
    content = (
        f"<office:document-content {names}><office:body><office:spreadsheet>"
        f'<table:table table:name="Sheet1">{body}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    manifest = f'<manifest:manifest xmlns:manifest="{_OASIS}:manifest:1.0"/>'
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    return _zipped({"mimetype": kind, "META-INF/manifest.xml": manifest, "content.xml": content})


def _relation(name: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{name}" Type="{_RELATION}/{kind}" Target="{target}"/>'


def _relations(content: str) -> str:
    return f'<Relationships xmlns="{_OPEN_XML}/package/2006/relationships">{content}</Relationships>'


def _xlsx_cell(place: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def _ods_cell(value: Any) -> str:
    if value is None:
        return "<table:table-cell/>"
    is_number = isinstance(value, int | float)
    kind = f'office:value-type="float" office:value="{value}"' if is_number else 'office:value-type="string"'
    return f"<table:table-cell {kind}><text:p>{escape(str(value))}</text:p></table:table-cell>"


def _zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
