"""Columns that tell the target, ids, copies across the split, and columns that only look like these."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._reading import Case, Outcome
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import Prepared, prepare
from unfreeze.models.tables.reading.frames import open_table, to_frame, write_feather

SIZES = (60, 150, 400, 2000)
Random = np.random.Generator
Column = Callable[[Random, pd.DataFrame], Any]


def _table(random: Random, rows: int) -> pd.DataFrame:
    """An honest table: two targets, and features that say something about them."""
    area, rooms = random.uniform(20, 200, rows).round(1), random.integers(1, 9, rows)
    price = (3000 * area + 9000 * rooms + random.normal(0, 90_000, rows)).clip(-80_000).round(2) + 100_000
    left = random.random(rows) < 1 / (1 + np.exp(1 - 0.02 * (area - 90)))
    town = random.choice(["Bonn", "Ulm", "Trier", "Jena"], rows)
    return pd.DataFrame({"area": area, "rooms": rooms, "town": town, "price": price, "left": left})


def _days(random: Random, rows: int) -> pd.Series:
    return pd.Series(pd.Timestamp("2021-01-01") + pd.to_timedelta(random.integers(0, 700, rows), "D"))


def _texts(days: pd.Series) -> pd.Series:
    return pd.Series(days.dt.strftime("%Y-%m-%d"))


def _flipped(random: Random, left: pd.Series, share: float) -> pd.Series:
    return pd.Series(left ^ (random.random(len(left)) > share))


TELL_THE_CLASS: dict[str, Column] = {
    "another name": lambda _, table: np.where(table["left"], "churned", "stays"),
    "a code": lambda _, table: np.where(table["left"], 3, 8),
    "a score": lambda random, table: (0.2 + 0.6 * table["left"] + random.uniform(-0.15, 0.15, len(table))).round(3),
    "a threshold": lambda random, table: random.uniform(0, 30, len(table)) + 30 * table["left"],
    "a date of it": lambda random, table: _texts(_days(random, len(table))).where(table["left"]),
    "a date or a dash": lambda random, table: (
        _days(random, len(table)).dt.date.astype(str).where(table["left"], "never")
    ),
    "a gap": lambda random, table: pd.Series(random.normal(size=len(table))).where(~table["left"]),
    "reasons": lambda random, table: np.where(table["left"], random.choice(["price", "service"], len(table)), "none"),
}
TELL_THE_NUMBER: dict[str, Column] = {
    "a copy": lambda _, table: table["price"],
    "in cents": lambda _, table: (table["price"] * 100).round().astype(int) + 7,
    "rounded": lambda _, table: table["price"].round(-4),
    "its logarithm": lambda _, table: np.log(table["price"]).round(4),
    "its rank": lambda _, table: table["price"].rank(ascending=False),
    "with noise": lambda random, table: table["price"] * random.uniform(0.98, 1.02, len(table)),
    "bands": lambda _, table: (table["price"] // 40_000).astype(int).map("band {}".format),
}
HONEST: dict[str, Column] = {
    "right in 9 of 10": lambda random, table: np.where(_flipped(random, table["left"], 0.9), "yes", "no"),
    "a strong number": lambda random, table: random.normal(size=len(table)) + 2.5 * table["left"],
    "gaps in 9 of 10": lambda random, table: pd.Series(random.normal(size=len(table))).where(
        _flipped(random, table["left"], 0.9)
    ),
    "a correlation of 0.9": lambda random, table: (
        table["price"] + random.normal(0, 0.48, len(table)) * table["price"].std()
    ),
    "one outlier": lambda random, table: np.where(
        table["price"] == table["price"].max(), 1e9, random.random(len(table))
    ),
    "many categories": lambda random, table: random.choice([f"shop {number}" for number in range(25)], len(table)),
    "dates": lambda random, table: _texts(_days(random, len(table))),
}


def _unique(random: Random, rows: int, low: int, high: float) -> np.ndarray:
    return random.permutation(np.arange(low, high))[:rows]


IDS: dict[str, tuple[str, Column]] = {
    "PassengerId": ("PassengerId", lambda _, table: np.arange(len(table)) * 7 + 3),
    "customer_no": ("customer_no", lambda random, table: _unique(random, len(table), 10**5, 10**6)),
    "Kundennummer": ("Kundennummer", lambda random, table: _unique(random, len(table), 10**5, 10**6)),
    "a saved index": ("Unnamed: 0", lambda _, table: np.arange(len(table))),
    "a counter": ("lfd", lambda _, table: np.arange(len(table)) + 1),
    "a counter from 1001": ("vorgang", lambda _, table: np.arange(len(table)) + 1001),
    "a shuffled counter": ("vorgang", lambda random, table: random.permutation(len(table)) + 1001),
    "a counter with gaps": (
        "vorgang",
        lambda random, table: np.sort(_unique(random, len(table), 1, len(table) * 1.05)),
    ),
    "64-bit hashes": ("fingerprint", lambda random, table: random.integers(10**17, 10**18, len(table)) // 10 * 10 + 7),
    "hashes in hex": ("fingerprint", lambda random, table: [random.bytes(8).hex() for _ in range(len(table))]),
    "an id with repeats": ("session_id", lambda random, table: random.integers(0, 2 * len(table), len(table))),
    "times as ids": ("order_id", lambda _, table: 20240101000000 + np.arange(len(table)) * 97),
}
NOT_IDS: dict[str, tuple[str, Column]] = {
    "prices": ("fee", lambda random, table: random.uniform(10, 90_000, len(table)).round(2)),
    "areas in whole metres": ("plot", lambda random, table: random.permutation(10**6)[: len(table)]),
    "weights that repeat": ("weight", lambda random, table: random.integers(40_000, 120_000, len(table)) // 10 * 10),
    "years": ("year", lambda _, table: 1000 + np.arange(len(table)) % 1000),
    "settings in order": ("degrees", lambda _, table: 18 + np.arange(len(table))),
    "a meter": ("meter", lambda random, table: np.cumsum(random.integers(1, 90, len(table)))),
    "ages": ("age", lambda random, table: random.integers(18, 90, len(table))),
}


def _prepared(folder: Path, frame: pd.DataFrame, target: str, **settings: object) -> Prepared:
    """The table through a file, as a training prepares it."""
    frame.to_csv(folder / "table.csv", index=False)
    write_feather(folder / "table.csv", folder / "table.arrow", lambda *_: None)
    return prepare(to_frame(open_table(folder / "table.arrow"), folder), [], TableDataSpec(target=[target], **settings))


def _with(make: Column, name: str, rows: int, drop: str) -> pd.DataFrame:
    random = np.random.default_rng(rows)
    table = _table(random, rows)
    return table.assign(**{name: make(random, table)}).drop(columns=drop)


def _roles(prepared: Prepared) -> dict[str, str]:
    return {role.column: role.role for role in prepared.roles}


def _leak(make: Column, target: str, rows: int) -> Callable[[Path], Outcome]:
    def read(folder: Path) -> Outcome:
        drop = "price" if target == "left" else "left"
        prepared = _prepared(folder, _with(make, "column", rows, drop), target)
        if _roles(prepared)["column"] == "left out":
            return "right"
        return "said" if any("column" in warning for warning in prepared.warnings) else "wrong"

    return read


def _honest(make: Column, target: str, rows: int) -> Callable[[Path], Outcome]:
    def read(folder: Path) -> Outcome:
        drop = "price" if target == "left" else "left"
        prepared = _prepared(folder, _with(make, "column", rows, drop), target, split="random")
        accused = [warning for warning in prepared.warnings if "almost alone" in warning]
        return "wrong" if accused or _roles(prepared)["column"] == "left out" else "right"

    return read


def _id(make: Column, name: str, rows: int, is_id: bool) -> Callable[[Path], Outcome]:
    def read(folder: Path) -> Outcome:
        prepared = _prepared(folder, _with(make, name, rows, "left"), "price")
        return "right" if (_roles(prepared)[name] == "left out") == is_id else "wrong"

    return read


def _copied(rows: int, groups: bool) -> Callable[[Path], Outcome]:
    """A sixth of the rows, or a patient in three with all rows, again under other ids."""

    def read(folder: Path) -> Outcome:
        random = np.random.default_rng(rows)
        table = _table(random, rows).drop(columns="left").assign(patient=np.arange(rows) // 5)
        again = table[table["patient"] % 3 == 0] if groups else table.sample(rows // 6, random_state=0)
        again = again.assign(patient=again["patient"] + 100_000)
        frame = pd.concat([table, again], ignore_index=True)
        frame.insert(0, "visit_id", random.permutation(len(frame)))
        if groups:
            by_group = _prepared(folder, frame, "price", split="group", split_column="patient", drop=["visit_id"])
            return "said" if any("copies of training rows" in each for each in by_group.warnings) else "wrong"
        frame = frame.drop(columns="patient")
        told = any("copies of training rows" in each for each in _prepared(folder, frame, "price").warnings)
        together = _prepared(folder, frame, "price", split="group")
        return "said" if told and not any("copies" in each for each in together.warnings) else "wrong"

    return read


CASES = [
    *(
        Case("leaks", f"{name}, {rows} rows", _leak(make, target, rows), ("right", "said"))
        for target, kinds in (("left", TELL_THE_CLASS), ("price", TELL_THE_NUMBER))
        for name, make in kinds.items()
        for rows in SIZES
    ),
    *(
        Case("strong columns that are honest", f"{name} for {target}, {rows} rows", _honest(make, target, rows))
        for name, make in HONEST.items()
        for target in ("left", "price")
        for rows in SIZES
    ),
    *(
        Case("ids", f"{name}, {rows} rows", _id(make, column, rows, is_id))
        for kinds, is_id in ((IDS, True), (NOT_IDS, False))
        for name, (column, make) in kinds.items()
        for rows in SIZES
    ),
    *(
        Case("copies across the split", f"{what}, {rows} rows", _copied(rows, what == "groups"), ("said",))
        for what in ("rows", "groups")
        for rows in SIZES
    ),
]
