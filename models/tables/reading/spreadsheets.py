"""Tables in spreadsheets (.xlsx, .xls, .xlsb and .ods), with cells as text."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.table_file import TableFile, find_header

_BLOCK_ROWS, _FIRST_ROWS = 65_536, 200


class Spreadsheet(TableFile):
    """The single visible sheet of a workbook with a table; merged cells all get their value.

    Raises UserError if no sheet or several sheets have rows.
    """

    def __init__(self, path: Path) -> None:
        sheet, others, rows, above = _only_table(path)
        row, names, said = find_header([[_text(cell) for cell in cells] for cells in rows[:_FIRST_ROWS]], str(path))
        notes = [f"sheet {sheet!r}, not {', '.join(map(repr, others))}"] if others else []
        self._rows = rows[row + 1 :]
        empty = [place for place, name in enumerate(names) if not name and not any(row[place] for row in self._rows)]
        reasons = dict.fromkeys(empty, "it has neither a name nor values")
        super().__init__(path, names, reasons, [*notes, *said], len(self._rows))
        self.first_row = above + row + 2

    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield cells as text: numbers in their shortest form, dates and times as ISO 8601."""
        for start in range(0, len(self._rows), _BLOCK_ROWS):
            rows = self._rows[start : start + _BLOCK_ROWS]
            columns = [[_text(row[place]) for row in rows] for place in self.places]
            arrays = [pa.array([text or None for text in column], pa.string()) for column in columns]
            yield pa.record_batch(arrays, names=[str(place) for place in self.places]), start + len(rows)


def _only_table(path: Path) -> tuple[str, list[str], list[list[Any]], int]:
    """Name of the sheet, names of the others, non-empty rows, and the number of rows above them."""
    from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum, ZipError

    try:
        with open(path, "rb") as file, CalamineWorkbook.from_filelike(file) as workbook:
            visible = [each.name for each in workbook.sheets_metadata if each.visible == SheetVisibleEnum.Visible]
            found = {}
            for name in visible:
                sheet = workbook.get_sheet_by_name(name)
                rows = sheet.to_python(skip_empty_area=False)
                _fill_merged(rows, sheet.merged_cell_ranges or [])
                above = next((place for place, row in enumerate(rows) if any(map(_text, row))), 0)
                rows = [row for row in rows if any(map(_text, row))]
                if len(rows) > 1:
                    found[name] = rows, above
    except (CalamineError, ZipError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable spreadsheet ({one_line(error)}); save it again") from error
    if not found:
        raise UserError(f"{path} has no sheet with a header and rows")
    if len(found) > 1:
        raise UserError(
            f"{path} has several sheets with tables: {', '.join(map(repr, found))}; save the one that is meant as a "
            "file of its own, or hide the others"
        )
    ((name, (rows, above)),) = found.items()
    return name, [each for each in visible if each != name], _without_margin(rows), above


def _fill_merged(rows: list[list[Any]], ranges: Sequence[Any]) -> None:
    # Not across columns: a title above several would look like a row of names.
    for (top, left), (bottom, right) in ranges:
        for row in rows[top + 1 : bottom + 1] if left == right else ():
            row[left] = rows[top][left]


def _without_margin(rows: list[list[Any]]) -> list[list[Any]]:
    """Strip empty columns before and after the table."""
    used = [place for place in range(len(rows[0])) if any(_text(row[place]) for row in rows)]
    return [row[used[0] : used[-1] + 1] for row in rows]


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)
