from pathlib import Path

import pandas as pd
import pytest

from benchmarks._reading import Case
from benchmarks._reading_files import CASES
from benchmarks.reading import outcome
from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.roles import Role
from unfreeze.models.tables.data import MOST_LINES, role_lines
from unfreeze.models.tables.preparing.row_reader import plainly_named
from unfreeze.models.tables.preparing.sources import check_sources, hash_sources
from unfreeze.models.tables.reading.frames import names_in_file, open_table, write_feather


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_is_read_as_it_is_meant_or_the_guess_is_said_or_it_is_refused(case: Case) -> None:
    assert outcome(case) in case.allowed


@pytest.mark.parametrize("header", ["a,b,c", " a, b ,c ", "a,,c", '"a\nb",  c d ,e'])
def test_names_in_a_model_s_signature_are_those_that_pandas_reads_from_the_file(tmp_path: Path, header: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"{header}\n1,2,3\n4,5,6\n")
    write_feather(file, tmp_path / "read.arrow")
    table, frame = open_table(tmp_path / "read.arrow"), pd.read_csv(file)
    assert [*names_in_file(table).values()] == frame.columns.tolist()
    assert plainly_named(frame).columns.tolist() == table.column_names


def test_a_setting_that_names_a_column_which_is_left_out_is_told_why(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2], "tags": [["x"], ["y"]]}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UserError, match=r"data\.target: column 'tags' cannot be used: values of type list"):
        check_sources(TableDataSpec(source=str(tmp_path / "table.parquet"), target=["tags"]))


def test_a_folder_is_another_table_once_a_file_in_it_changes_or_moves(tmp_path: Path) -> None:
    seen = set()
    for name in ("year=1/a.parquet", "year=2/a.parquet"):
        file = tmp_path / name
        file.parent.mkdir()
        pd.DataFrame({"a": [1]}).to_parquet(file)
        seen.add(hash_sources({str(tmp_path): tmp_path})[str(tmp_path)])
    file.rename(file.with_name("b.parquet"))
    seen.add(hash_sources({str(tmp_path): tmp_path})[str(tmp_path)])
    assert len(seen) == 3


def test_three_thousand_columns_are_a_few_lines(tmp_path: Path) -> None:
    roles = [Role("y", "target", "regression", ""), *(Role(f"x{place}", "number", "", "") for place in range(3_000))]
    lines = role_lines(roles)
    assert len(lines) < MOST_LINES
    assert lines[0].startswith("y: target")
    assert lines[-1] == "x5, x6, x7, ... (2,995 more columns): number; the report has all of them"
    assert role_lines(roles[:10]) == list(map(str, roles[:10]))
