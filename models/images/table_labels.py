"""The labels that a table gives its images: one each, several in one column, or a column of 0 and 1 per label."""

from collections.abc import Sequence
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.path_tables import PathTable, shortened
from unfreeze.models.label_sets import SEPARATOR, join, understand
from unfreeze.models.specs import DataSpec

_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}
FEWEST_COLUMNS = 2
"""A single column of 0 and 1 is a column of classes."""


class TableLabels(NamedTuple):
    """What the rows of a table are labelled with.

    Attributes
    ----------
    texts
        Of every row: its class, or its labels as `models.label_sets.join` writes them.
    multiple
        Whether a row may have any number of labels.
    how
        How they were understood, for people.
    """

    texts: list[str]
    multiple: bool
    how: str


def table_labels(table: PathTable, data: DataSpec) -> TableLabels:
    """Read the labels as the settings, or the cells, say.

    Raises
    ------
    UserError
        For a column that is missing, an empty cell where a class is expected, or one that is neither 0 nor 1.
    """
    columns = data.label_columns or _columns_of_marks(table, data)
    if columns:
        return _from_marks(table, columns, data)
    texts = table.columns([data.label_column], "data.label_column, or data.label_columns")[data.label_column]
    understood = understand(texts, data.labels, data.label_separator, "data.labels")
    if understood.labels is not None:
        return TableLabels([join(each) for each in understood.labels], True, understood.how)
    table.reject_rows((row for row, text in enumerate(texts) if not text), f"empty {data.label_column!r}")
    return TableLabels(texts, False, understood.how)


def _columns_of_marks(table: PathTable, data: DataSpec) -> list[str]:
    """All columns but those of paths and of the split, if there is no column of labels and all of them are 0 or 1."""
    if data.label_column in table.names:
        return []
    others = [name for name in table.names if name not in (data.path_column, data.split_column)]
    if len(others) < FEWEST_COLUMNS:
        return []
    cells = table.columns(others, "data.label_columns")
    is_marks = all(set(map(str.casefold, column)) <= _YES | _NO for column in cells.values())
    return others if is_marks and any(cells.values()) else []


def _from_marks(table: PathTable, columns: Sequence[str], data: DataSpec) -> TableLabels:
    cells = table.columns(columns, "data.label_columns")
    for name, column in cells.items():
        wrong = [row for row, cell in enumerate(column) if cell.casefold() not in _YES | _NO]
        shown = {row: repr(column[row]) for row in wrong}
        table.reject_rows(wrong, f"{name!r} is neither 0 nor 1", shown.__getitem__)
        if SEPARATOR in name:
            raise UserError(f"data.label_columns: {name!r} holds {SEPARATOR!r}, which separates labels; rename it")
    rows = zip(*([cell.casefold() in _YES for cell in column] for column in cells.values()), strict=True)
    labels = [[name for name, marked in zip(columns, row, strict=True) if marked] for row in rows]
    if data.labels != "multiple" and all(len(each) == 1 for each in labels):
        how = (
            f"one label per image: every row has a single 1 in {shortened(columns, most=3)}; "
            "`--data.labels multiple` lets an image have several"
        )
        return TableLabels([each[0] for each in labels], False, how)
    if data.labels == "single":
        others = (row for row, each in enumerate(labels) if len(each) != 1)
        table.reject_rows(others, "data.labels is single, so exactly one label column must be 1")
    how = f"any number of labels per image, from columns of 0 and 1: {shortened(columns, most=3)}"
    return TableLabels([join(each) for each in labels], True, how)
