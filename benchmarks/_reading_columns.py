"""Columns of tables as people write them: gaps, dates, numbers; read whole by a training, and row by row afterwards."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._reading import Case, Outcome
from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import Prepared, assemble, prepare, with_date_parts
from unfreeze.models.tables.preparing.row_reader import RowReader, TrainedTypes
from unfreeze.models.tables.reading.frames import open_table, to_frame, write_feather

ROWS = 120
HOURS = pd.date_range("2019-01-05 00:30", periods=ROWS, freq="53h")
DAYS = HOURS.normalize()
MONTHS = pd.date_range("2010-01-01", periods=ROWS, freq="MS")
QUARTERS = pd.date_range("1990-01-01", periods=ROWS, freq="QS")
WEEKS = pd.date_range("2018-01-01", periods=ROWS, freq="W-MON")
_CHANCE = np.random.default_rng(0)
NUMBERS = np.exp(_CHANCE.normal(7, 1.5, ROWS)).round(2)
WHOLE = np.exp(_CHANCE.normal(8, 2, ROWS)).round()
NOISE = _CHANCE.normal(size=ROWS)
CLASSES = _CHANCE.choice(["a", "b"], ROWS)


def trained(folder: Path, columns: Mapping[str, Any], target: str = "y", **data: object) -> Prepared:
    """What a training makes of a CSV file with these columns, a column of noise, and a target of noise if none."""
    frame = pd.DataFrame({"x": NOISE, **({} if target in columns else {target: -NOISE}), **columns})
    frame.to_csv(folder / "table.csv", index=False)
    write_feather(folder / "table.csv", folder / "table.arrow", verbatim=[target])
    return prepare(to_frame(open_table(folder / "table.arrow")), [], TableDataSpec(target=[target], **data))


def alone_alike(prepared: Prepared, folder: Path) -> bool:
    """Whether single rows are encoded as in the training: from a file, and as pandas reads them unless refused."""
    types = TrainedTypes.of(prepared.encoder, [], prepared.data, prepared.raw)
    lines = (folder / "table.csv").read_text().splitlines(keepends=True)
    for row in (0, ROWS // 2, ROWS - 1):
        (folder / "row.csv").write_text(lines[0] + lines[row + 1])
        write_feather(folder / "row.csv", folder / "row.arrow", text=types.text_columns())
        rows, errors = RowReader(open_table(folder / "row.arrow"), types).read(0, 1)
        if errors or not _encoded_alike(prepared, rows, row):
            return False
        rows, errors = types.apply(pd.read_csv(folder / "row.csv"))
        try:
            if not errors and not _encoded_alike(prepared, rows, row):
                return False
        except UserError:  # pandas lost what tells: a leading zero, or the last one of 2010.10
            continue
    return True


def _encoded_alike(prepared: Prepared, rows: pd.DataFrame, row: int) -> bool:
    assembled = assemble(rows, [], prepared.data, training=False, lenient=prepared.raw.lenient).frame
    encoded, expected = prepared.encoder.transform(with_date_parts(assembled, prepared.data)), prepared.encoded
    same = np.array_equal(encoded.categorical[0], expected.categorical[row])
    return same and np.allclose(encoded.continuous[0], expected.continuous[row], atol=1e-5)


# --- texts that look like gaps ----------------------------------------------------------------------------------------

GAPS = ("None", "NA", "null", "nan", "n/a", "-", "?", "N/A", "NULL", "NaN", "unknown")


def class_of_its_own(word: str, share: float, folder: Path) -> Outcome:
    """A word as one of the classes of a target of text: no row is lost, and it is said."""
    target = np.where(np.arange(ROWS) % 100 < 100 * share, word, CLASSES)
    prepared = trained(folder, {"y": target})
    kept = prepared.encoder.classes == sorted({"a", "b", word}) and len(prepared.frame) == ROWS
    said = any(repr(word) in warning for warning in prepared.warnings)
    return "said" if kept and said else "wrong"


def gap_of_numbers(word: str, numbers: np.ndarray, folder: Path) -> Outcome:
    """A word for a missing value among the numbers of a target: the rows are left out, and it is said."""
    target = [word if row % 30 == 0 else f"{number:g}" for row, number in enumerate(numbers)]
    prepared = trained(folder, {"y": target})
    said = any(repr(word) in warning and "4 rows" in warning for warning in prepared.warnings)
    right = len(prepared.frame) == ROWS - 4 and prepared.frame["y"].dtype.kind in "if"
    return "said" if right and said else "wrong"


def gap_of_a_feature(word: str, folder: Path) -> Outcome:
    """A word for a missing value among the numbers of a feature is missing."""
    prepared = trained(folder, {"a": [word if row % 40 == 0 else number for row, number in enumerate(NUMBERS)]})
    right = prepared.frame["a"].isna().sum() == 3 and np.allclose(
        prepared.frame["a"].dropna(), np.delete(NUMBERS, [0, 40, 80])
    )
    return "right" if right and alone_alike(prepared, folder) else "wrong"


# --- dates ------------------------------------------------------------------------------------------------------------

_ENDINGS = {1: "st", 2: "nd", 3: "rd"}
_12_HOURS = "%I:%M %p"
DATES: dict[str, tuple[pd.DatetimeIndex, Callable[[pd.Timestamp], object]]] = {
    **{
        form: (DAYS, partial(pd.Timestamp.strftime, format=form))
        for form in (
            *("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d%m%Y"),
            *(
                "%d/%m/%y",
                "%m/%d/%y",
                "%d.%m.%y",
                "%d-%m-%y",
                "%d-%b-%y",
                "%d-%b-%Y",
                "%d %B %Y",
                "%B %d, %Y",
                "%b %d %Y",
            ),
            *("%A, %d %B %Y", "%a %d %b %Y", "%d%b%Y", "%Y %b %d", "%-d/%-m/%Y", "%-m/%-d/%y"),
        )
    },
    **{
        form: (HOURS, partial(pd.Timestamp.strftime, format=form))
        for form in (
            *("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+05:30", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S"),
            *(f"%m/%d/%Y {_12_HOURS}", f"%d-%b-%y {_12_HOURS}", "%d.%m.%Y %H:%M", "%a %b %d %H:%M:%S %Y"),
            *("%d%b%Y:%H:%M:%S", "%Y%m%d%H%M", "%Y%m%dT%H%M%S", "%a %b %d %H:%M:%S +0000 %Y", "%H:%M %d/%m/%Y"),
        )
    },
    **{
        form: (MONTHS, partial(pd.Timestamp.strftime, format=form))
        for form in (
            *("%B-%Y", "%b-%Y", "%b %y", "%Y-%m", "%Y/%m", "%m/%Y", "%Y%m", "%B %Y", "%Y-%b", "%b-%y", "%Y.%m"),
        )
    },
    "2019-Q3": (QUARTERS, lambda time: f"{time.year}-Q{time.quarter}"),
    "2019Q3": (QUARTERS, lambda time: f"{time.year}Q{time.quarter}"),
    "Q3 2019": (QUARTERS, lambda time: f"Q{time.quarter} {time.year}"),
    "2019-W05": (WEEKS, partial(pd.Timestamp.strftime, format="%G-W%V")),
    "2019W05": (WEEKS, partial(pd.Timestamp.strftime, format="%GW%V")),
    "unix s": (HOURS, lambda time: int(time.timestamp())),
    "unix ms": (HOURS, lambda time: int(time.timestamp()) * 1000),
    "7th January 2019": (
        DAYS,
        lambda time: f"{time.day}{'th' if time.day > 3 else ['st', 'nd', 'rd'][time.day - 1]} {time:%B %Y}",
    ),
}


def date(name: str, column: str, folder: Path) -> Outcome:
    """A column of dates in the order of time: read, split by time, and read alike row by row."""
    times, write = DATES[name]
    prepared = trained(folder, {column: [write(time) for time in times]})
    if prepared.data.date != [column] or prepared.data.split != "last_days":
        return "wrong"
    right = (prepared.frame[column] == times).all() and prepared.data.time_of_day == (times is HOURS)
    return "right" if right and alone_alike(prepared, folder) else "wrong"


def ambiguous_date(form: str, named: bool, folder: Path) -> Outcome:
    """Days up to 12 of months: refused where the date is named, else text with the reason."""
    days = [f"2019-{1 + row * 7 % 12:02}-{1 + row * 5 % 12:02}" for row in range(ROWS)]
    texts = [pd.Timestamp(day).strftime(form) for day in days]
    prepared = trained(folder, {"day": texts}, date=["day"] if named else [])
    said = any(role.column == "day" and "nothing tells" in role.reason for role in prepared.roles)
    return "said" if said and not prepared.data.date else "wrong"


def parts_of_a_date(columns: dict[str, str], folder: Path) -> Outcome:
    """Year, month and finer parts in columns of their own."""
    prepared = trained(folder, {name: getattr(HOURS, part) for name, part in columns.items()})
    finest = [*columns.values()][-1]
    times = {"hour": HOURS.floor("h"), "day": DAYS, "month": DAYS - pd.to_timedelta(DAYS.day - 1, "D")}[finest]
    right = len(prepared.data.date) == 1 and (prepared.frame[prepared.data.date[0]] == times).all()
    return "right" if right and prepared.data.split == "last_days" and alone_alike(prepared, folder) else "wrong"


# --- numbers ----------------------------------------------------------------------------------------------------------


def _scaled(number: float) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"


STYLES: dict[str, tuple[np.ndarray, Callable[[float], object]]] = {
    "6.611 beside 850": (WHOLE, lambda number: f"{number:,.0f}".replace(",", ".")),
    "6,611 beside 850": (WHOLE, lambda number: f"{number:,.0f}"),
    "6 611 beside 850": (WHOLE, lambda number: f"{number:,.0f}".replace(",", " ")),
    "6'611": (WHOLE, lambda number: f"{number:,.0f}".replace(",", "'")),
    "10,000+": (WHOLE, lambda number: f"{number:,.0f}+"),
    "+5": (WHOLE, lambda number: f"{number:+g}"),
    "1.234,50": (NUMBERS, lambda number: f"{number:,.2f}".translate({44: ".", 46: ","})),
    "1234,5": (NUMBERS, lambda number: f"{number}".replace(".", ",")),
    "$1,234.50": (NUMBERS, lambda number: f"${number:,.2f}"),
    "1.234,50 €": (NUMBERS, lambda number: f"{number:,.2f} €".translate({44: ".", 46: ","})),
    "USD 12": (WHOLE, lambda number: f"USD {number:.0f}"),
    "(12.50)": (NUMBERS, lambda number: f"{number:.2f}"),
    "45.2%": (NUMBERS, lambda number: f"{number}%"),
    "45,2 %": (NUMBERS, lambda number: f"{number} %".replace(".", ",")),
    "110 kg": (WHOLE, lambda number: f"{number:.0f} kg"),
    "12.5 km/h": (NUMBERS, lambda number: f"{number} km/h"),
    "12.5°C": (NUMBERS, lambda number: f"{number}°C"),
    "80 m²": (WHOLE, lambda number: f"{number:.0f} m²"),
    "5 years, 1 year": (np.arange(ROWS) % 9 + 1.0, lambda number: f"{number:g} year{'s' if number > 1 else ''}"),
    "4th, 5th": (np.arange(ROWS) % 16 + 4.0, lambda number: f"{number:g}th"),
    "13.1M": (np.arange(1, ROWS + 1) * 1e5, _scaled),
    "€110.5M": (np.arange(1, ROWS + 1) * 1e5, lambda number: f"€{number / 1e6:.1f}M"),
    "1.5 Mio. €": (np.arange(1, ROWS + 1) * 1e5, lambda number: f"{number / 1e6:.1f} Mio. €".replace(".", ",", 1)),
    "5'11\"": (np.arange(ROWS) % 30 + 55.0, lambda number: f"{number // 12:g}'{number % 12:g}\""),
    "12:30": (np.arange(ROWS) * 7.0 + 61, lambda number: f"{number // 60:g}:{int(number % 60):02}"),
    "1:02:30": (np.arange(ROWS) * 97.0, lambda number: f"{timedelta(seconds=number)}"),
    "2h 50m": (np.arange(1, ROWS + 1) * 300.0, lambda number: f"{number // 3600:g}h {number % 3600 // 60:g}m"),
    "1e3": (NUMBERS, lambda number: f"{number:e}"),
    "~5": (WHOLE, lambda number: f"~{number:.0f}"),
}


def number(style: str, target: bool, folder: Path) -> Outcome:
    """A column of numbers: read as these numbers, said as what, and read alike row by row."""
    numbers, write = STYLES[style]
    name = "y" if target else "amount"
    prepared = trained(folder, {name: [write(each) for each in numbers]})
    values = prepared.frame[name]
    if values.dtype.kind not in "if" or not np.allclose(values.astype(float), numbers, rtol=1e-5):
        return "wrong"
    if target:
        return "right"
    return "right" if alone_alike(prepared, folder) else "wrong"


TEXTS: dict[str, list[str]] = {
    "85 kg, 187 lb": ["85 kg", "187 lb", "90 kg", "101 lb"],
    "$5, €5": ["$5", "€5", "$7", "€9"],
    "45%, 0.45": ["45%", "0.45", "5%", "0.7"],
    "12:30, 1:02:30": ["12:30", "1:02:30", "14:15", "2:00:01"],
    "sizes": ["M", "L", "XL", "XXL"],
    "grades": ["C", "D", "C", "I"],
    "Roman numerals": ["I", "II", "III", "IV"],
    "Arabic digits": ["\u0661\u0662", "\u0663", "\u0664\u0665", "\u0667"],
    "ranges": ["10-20", "20-30", "30-40", "40+ or so"],
    "versions": ["1.2.3", "2.0.1", "10.4.2", "0.0.9"],
    "codes": ["A12", "B7", "C9", "D100"],
    "rooms": ["Room 5", "Room 7", "Room 9", "Room 12"],
    "zip codes": ["01234", "53111", "99999", "00501"],
    "fractions": ["1/2", "1/4", "3/4", "1/3"],
}


def text(name: str, folder: Path) -> Outcome:
    """Texts that resemble numbers stay categories."""
    values = TEXTS[name] * (ROWS // len(TEXTS[name]))
    prepared = trained(folder, {"it": values})
    right = prepared.frame["it"].tolist() == values and "it" in prepared.encoder.categorical
    return "right" if right and alone_alike(prepared, folder) else "wrong"


def target_of(values: Sequence[object], regression: bool, classes: Sequence[object], folder: Path) -> Outcome:
    """What a target is: numbers, or classes as they are written."""
    encoder = trained(folder, {"y": (list(values) * ROWS)[:ROWS]}).encoder
    right = (encoder.task == "regression") == regression and encoder.classes == list(classes)
    return "right" if right else "wrong"


def infinite(word: str, folder: Path) -> Outcome:
    """Infinity is missing, and said so."""
    prepared = trained(folder, {"a": [word, *NUMBERS[1:]]})
    said = any("infinite" in str(entry["reason"]) for entry in prepared.rejected) or "cannot be read" in str(
        prepared.roles
    )
    return "said" if said and prepared.frame["a"].isna().sum() == 1 else "wrong"


def ordered(kind: str, folder: Path) -> Outcome:
    """Rows in the order of time without a date are noticed; others are split at random."""
    steps = np.cumsum(np.random.default_rng(1).normal(size=(ROWS * 3, 3)), axis=0)
    frame = pd.DataFrame(steps, columns=["a", "b", "y"])
    if kind != "series":
        frame = {"shuffled": frame.sample(frac=1, random_state=0), "sorted": frame.sort_values("y")}[kind]
    prepared = prepare(frame.reset_index(drop=True), [], TableDataSpec(target=["y"]))
    if kind == "series":
        return "said" if prepared.data.split == "last_rows" else "wrong"
    return "right" if prepared.data.split == "random" else "wrong"


TARGETS: tuple[tuple[str, list[str], bool, list[Any]], ...] = (
    ("few fractions", ["0.5", "1.5", "2.0", "2.5"], True, []),
    ("few whole numbers", ["1", "2", "3"], False, [1, 2, 3]),
    ("leading zeros", ["01", "02", "10"], False, ["01", "02", "10"]),
    ("leading zeros, long", ["007", "042", "100"], False, ["007", "042", "100"]),
    ("leading zeros of different lengths", ["01", "02", "100"], False, ["01", "02", "100"]),
    ("yes and no", ["yes", "no"], False, ["no", "yes"]),
    ("true and false", ["True", "False"], False, ["False", "True"]),
    ("numbers with a unit", ["5 kg", "10 kg"], False, [5, 10]),
)
PARTS: tuple[dict[str, str], ...] = (
    {"year": "year", "month": "month", "day": "day", "hour": "hour"},
    {"Year": "year", "Month": "month", "Day": "day"},
    {"yr": "year", "mo": "month", "dy": "day"},
    {"start_year": "year", "start_month": "month"},
)
AMBIGUOUS = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%y", "%m/%d/%y", "%d/%m/%Y 10:00")
COUNTED = {"fractions": NUMBERS, "0 and 1": np.arange(ROWS) % 2}
SAID: tuple[Outcome, ...] = ("said",)
ASKED: tuple[Outcome, ...] = ("refused",)

CASES = [
    *(Case("gaps", f"class {word}, {share:.0%}", partial(class_of_its_own, word, share), SAID)
      for word in GAPS for share in (0.5, 0.04)),
    *(Case("gaps", f"{word} beside {name}", partial(gap_of_numbers, word, numbers), SAID)
      for word in GAPS for name, numbers in COUNTED.items()),
    *(Case("gaps", f"{word} as often as 0 and 1", partial(target_of, ["0", "1", word], False, []), ASKED)
      for word in GAPS),
    *(Case("gaps", f"{word} in a feature", partial(gap_of_a_feature, word)) for word in GAPS),
    *(Case("dates", f"{name}, {column}", partial(date, name, column))
      for name in DATES for column in ("when", "created_at")),
    *(Case("dates", f"ambiguous {form}", partial(ambiguous_date, form, False), SAID) for form in AMBIGUOUS),
    *(Case("dates", f"ambiguous {form}, named", partial(ambiguous_date, form, True), ASKED) for form in AMBIGUOUS),
    *(Case("dates", f"columns {', '.join(parts)}", partial(parts_of_a_date, parts)) for parts in PARTS),
    *(Case("numbers", style, partial(number, style, False)) for style in STYLES),
    *(Case("numbers", f"{style}, target", partial(number, style, True)) for style in STYLES),
    *(Case("numbers", f"no number: {name}", partial(text, name)) for name in TEXTS),
    *(Case("numbers", f"target of {name}", partial(target_of, values, is_regression, classes))
      for name, values, is_regression, classes in TARGETS),
    *(Case("numbers", word, partial(infinite, word), SAID) for word in ("inf", "-inf", "Infinity")),
    Case("order of rows", "a series without a date", partial(ordered, "series"), SAID),
    *(Case("order of rows", kind, partial(ordered, kind)) for kind in ("shuffled", "sorted")),
]  # fmt: skip
