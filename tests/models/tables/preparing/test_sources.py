"""What the files of a table tell by their names and headers."""

from pathlib import Path

import pandas as pd
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import prepare
from unfreeze.models.tables.preparing.sources import check_sources, join_many_to_one


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    (tmp_path / "sales.csv").write_text("day,price,shop\n2024-01-01,2,a\n")
    (tmp_path / "shops.csv").write_text("shop,price,town\na,1,x\n")
    return tmp_path / "sales.csv"


def test_every_column_of_joined_tables_is_known_by_the_name_that_it_gets(sales: Path) -> None:
    shops = sales.with_name("shops.csv")
    joined = join_many_to_one(pd.read_csv(sales), pd.read_csv(shops), ["shop"], "shops")
    for name in joined:
        check_sources(TableDataSpec(source=str(sales), join=[f"{shops} on shop"], target=[str(name)]))


@pytest.mark.parametrize("field", ["target", "date", "events", "rolling", "group"])
def test_a_column_that_no_file_has_is_named_with_its_setting(sales: Path, field: str) -> None:
    stated = {"target": ["price"], "date": ["day"], "group": ["shop"], field: ["twon"]}
    data = TableDataSpec(source=str(sales), join=[str(sales.with_name("shops.csv"))], **stated)
    with pytest.raises(UserError, match=rf"data\.{field}: the table has no column 'twon'; did you mean town"):
        check_sources(data)


@pytest.mark.parametrize("field", ["target", "date", "categorical", "continuous"])
def test_a_column_that_is_used_and_left_out_is_told_with_both_settings(sales: Path, field: str) -> None:
    data = TableDataSpec(source=str(sales), **{"target": ["price"], field: ["day"], "drop": ["shop", "day"]})
    message = rf"data\.drop and data\.{field}: both name day; keep it in one"
    with pytest.raises(UserError, match=message):
        check_sources(data)
    with pytest.raises(UserError, match=message):
        prepare(pd.read_csv(sales), [], data)


def test_a_folder_is_no_table(sales: Path) -> None:
    with pytest.raises(UserError, match=r"data\.source or data\.join: .* is a folder without Parquet files"):
        check_sources(TableDataSpec(source=str(sales.parent), target=["price"]))


@pytest.mark.parametrize("name", ["sales.feather", "sales.parquet"])
def test_a_damaged_file_is_told_as_when_it_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"ARROW1 PAR1 damaged")
    with pytest.raises(UserError, match=r"is not a readable (feather|Parquet) file"):
        check_sources(TableDataSpec(source=str(tmp_path / name), target=["price"]))
