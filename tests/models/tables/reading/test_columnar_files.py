from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.frames import open_table, write_feather

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def saved(zone: str, suffix: str, folder: Path) -> Path:
    table = pa.table({"moment": pa.array([NOON, None], pa.timestamp("us", zone)), "price": [1.5, 2.5]})
    source = folder / f"source{suffix}"
    if suffix == ".parquet":
        pa.parquet.write_table(table, source)
    else:
        pa.feather.write_feather(table, str(source))
    return source


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
@pytest.mark.parametrize(("zone", "clock"), [("+05:30", 17.5), ("-03:30", 8.5)])
def test_times_of_half_an_hour_s_offset_keep_their_wall_clock(tmp_path, capfd, zone, clock, suffix):
    write_feather(saved(zone, suffix, tmp_path), tmp_path / "target.feather")
    table = open_table(tmp_path / "target.feather")
    moment, missing = table["moment"].to_pylist()
    assert (moment.hour + moment.minute / 60, moment.tzinfo, missing) == (clock, None, None)
    assert table["price"].to_pylist() == [1.5, 2.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"source{suffix}", "target.feather"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_a_zone_that_does_not_exist_is_one_line_that_names_it(tmp_path, capfd, suffix):
    source = saved("Mars/Base", suffix, tmp_path)
    with pytest.raises(UserError, match=r"source\.\w+ is not a readable .* 'Mars/Base'"):
        write_feather(source, tmp_path / "target.feather")
    assert capfd.readouterr().err == "", "a library's panic"


@pytest.mark.parametrize("zone", ["UTC", "+02:00", "Europe/Berlin"])
def test_times_have_the_wall_clock_of_their_zone(tmp_path, zone):
    write_feather(saved(zone, ".parquet", tmp_path), tmp_path / "target.feather")
    there = pd.Timestamp(NOON).tz_convert(zone).tz_localize(None)
    assert open_table(tmp_path / "target.feather")["moment"].to_pylist() == [there, None]
