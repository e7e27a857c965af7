"""Files of tables: formats, encodings, separators and their quirks, compared cell by cell with what is meant."""

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from benchmarks._reading import Case, Outcome
from benchmarks._workbooks import ods, xlsx
from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.frames import file_notes, open_table, write_feather

Columns = dict[str, list[Any]]
KIND = "files of tables"

MEANT: Columns = {
    "city": ["Köln", "Málaga", "Århus", "Genève", "Łódź", "Paris, Nord"],
    "rooms": [2, 3, 1, 4, 2, 3],
    "price": [650.5, 820.0, 410.25, 1200.75, 380.5, 990.0],
}
WESTERN: Columns = {**MEANT, "city": ["Köln", "Málaga", "Århus", "Genève", "Zürich", "Paris, Nord"]}


def ends(path: Path, meant: Mapping[str, Sequence[Any]], guess: str = "") -> Outcome:
    """Read a file and compare it; a part of the note that must be said makes a right reading a guess that is said."""
    target = path.parent / "read.arrow"
    write_feather(path, target)
    table = open_table(target)
    notes, left_out = file_notes(table)
    said = " / ".join([*notes, *(f"{name}: {reason}" for name, reason in left_out.items())])
    is_right = table.column_names == list(meant) and all(
        _same(table[name].to_pylist(), values) for name, values in meant.items()
    )
    if is_right:
        return "said" if guess and guess in said else "wrong" if guess else "right"
    return "wrong"


def _same(found: Sequence[Any], meant: Sequence[Any]) -> bool:
    return len(found) == len(meant) and all(
        one == other or (one is None and other is None) for one, other in zip(found, meant, strict=True)
    )


def written(
    table: Mapping[str, Sequence[Any]] = MEANT,
    separator: str = ",",
    quote: str = '"',
    escaped: bool = False,
    line_end: str = "\n",
    decimal: str = ".",
    trailing: bool = False,
) -> str:
    """A table as separated text; cells that hold what has a meaning are quoted."""

    def cell(value: Any) -> str:
        text = "" if value is None else str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        if any(mark in text for mark in (separator, quote, "\n", "\r")):
            return quote + text.replace(quote, ("\\" if escaped else quote) + quote) + quote
        return text

    rows = [list(table), *zip(*table.values(), strict=True)]
    lines = [separator.join(map(cell, row)) + separator * trailing for row in rows]
    return line_end.join([*lines, ""])


def text_case(
    name: str,
    content: str | bytes,
    meant: Mapping[str, Sequence[Any]] | None = None,
    guess: str = "",
    suffix: str = ".csv",
    allowed: tuple[Outcome, ...] | None = None,
) -> Case:
    """A file of that content; what is meant is None where it must be refused."""

    def read(folder: Path) -> Outcome:
        path = folder / f"table{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ends(path, meant or {}, guess)

    expected: tuple[Outcome, ...] = ("refused",) if meant is None else ("said",) if guess else ("right",)
    return Case(KIND, name, read, allowed or expected)


def file_case(name: str, write: Callable[[Path], Path], meant: Columns | None, guess: str = "") -> Case:
    """A file or folder that a function writes into an empty folder."""

    def read(folder: Path) -> Outcome:
        return ends(write(folder), meant or {}, guess)

    return Case(KIND, name, read, ("refused",) if meant is None else ("said",) if guess else ("right",))


def zipped(content: str, *others: str) -> bytes:
    """A zip archive of a table and other files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("table.csv", *others):
            archive.writestr(name, content)
    return buffer.getvalue()


def dialects() -> Iterator[Case]:
    """Separators, quotes, ends of lines, decimal marks."""
    names = {",": "", ";": "semicolons", "\t": "tabs", "|": "'|'"}
    for separator, line_end in itertools.product(names, ("\n", "\r\n", "\r")):
        suffixes = {"\t": ".tsv"}
        content = written(separator=separator, line_end=line_end)
        guess = names[separator] if separator in ";|" else ""
        yield text_case(f"{separator!r} and {line_end!r}", content, MEANT, guess, suffixes.get(separator, ".csv"))
    yield text_case("tabs in .txt", written(separator="\t"), MEANT, "tabs", ".txt")
    yield text_case("tabs in .csv", written(separator="\t"), MEANT, "tabs")
    yield text_case("commas in .txt", written(), MEANT, suffix=".txt")
    yield text_case("commas in .tsv", written(), MEANT, "commas", ".tsv")
    for separator in (",", ";", "\t"):
        stated = f"sep={separator}\n" + written(separator=separator)
        yield text_case(f"sep={separator!r}", stated, MEANT)
        yield text_case(
            f"sep={separator!r} in quotes, CRLF", f'"sep={separator}"\r\n' + written(separator=separator), MEANT
        )
        ending = written(separator=separator, trailing=True)
        yield text_case(f"{separator!r} at every end", ending, MEANT, "neither a name nor values")
        header, rest = ending.split("\n", 1)
        yield text_case(
            f"{separator!r} at the end of rows", f"{header[:-1]}\n{rest}", MEANT, "neither a name nor values"
        )
    tall: Columns = {"price, EUR": [650.5, 820.25, 3.75], "rooms": [1, 2, 3]}
    for separator in (";", "\t", "|"):
        yield text_case(f"a comma in a name among {separator!r}", written(tall, separator), tall, "separated by")
        quoted = written(tall, separator).replace("price, EUR", '"price, EUR"')
        yield text_case(f"a comma in a quoted name among {separator!r}", quoted, tall, "separated by")
    yield text_case(
        "a semicolon in a name among commas", written({"a;b": [1, 2], "c": [3, 4]}), {"a;b": [1, 2], "c": [3, 4]}
    )
    texts: Columns = {"text": ['say "yes"', "it's, well", "C:\\new", "two\nlines", "plain"], "n": [1, 2, 3, 4, 5]}
    yield text_case("doubled quotes and line breaks in cells", written(texts), texts)
    mild: Columns = {"text": ["a, b", "it is, well", "no", "c, d"], "n": [1, 2, 3, 4]}
    yield text_case("single quotes", written(mild, quote="'"), mild, "quoted by '")
    escapes: Columns = {"text": ['say "yes", he', "so, it is", 'a "b", c'], "n": [1, 2, 3]}
    yield text_case("quotes escaped by backslashes", written(escapes, escaped=True), escapes)
    yield text_case(
        "apostrophes", "text,n\nit's,1\ndon't,2\nwon't,3\n", {"text": ["it's", "don't", "won't"], "n": [1, 2, 3]}
    )
    dated: Columns = {"day": ["2024-01-02 10:30", "2024-01-03 11:00"], "v": [1, 2]}
    yield text_case("spaces in dates", written(dated), dated)
    tags: Columns = {"id": [11, 12, 13], "tags": ["a;b;c", "d;e;f", "a;c;d"]}
    yield text_case("lists by semicolons in a column", written(tags), tags)
    decimals = written({"a": [1.5, 2.25, 3.75], "b": [4, 5, 6]}, ";", decimal=",")
    yield text_case("decimal commas", decimals, {"a": ["1,5", "2,25", "3,75"], "b": [4, 5, 6]}, "semicolons")
    yield text_case("one column", "name\nfoo\nbar\n", {"name": ["foo", "bar"]})
    yield text_case("one column of numbers", "x\n1.5\n2.5\n", {"x": [1.5, 2.5]})
    yield text_case("no line end at the end", "a,b\n1,2\n3,4", {"a": [1, 3], "b": [2, 4]})
    yield text_case("blank lines", "\n\na,b\n\n1,2\n\n3,4\n\n", {"a": [1, 3], "b": [2, 4]})
    wide: Columns = {f"c{place}": [place, 1] for place in range(3_000)}
    yield text_case("3,000 columns", written(wide), wide)


def encodings() -> Iterator[Case]:
    """UTF-8, UTF-16 and UTF-32 with and without a mark, and those that can only be guessed."""
    for name, mark in {
        "utf-8": codecs.BOM_UTF8,
        "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE,
    }.items():
        for separator in (",", "\t"):
            content = written(separator=separator)
            suffix = ".csv" if separator == "," else ".tsv"
            yield text_case(f"{name} with a mark, {separator!r}", mark + content.encode(name), MEANT, suffix=suffix)
            meant = MEANT if name == "utf-8" else None  # without a mark UTF-16 is refused
            yield text_case(f"{name} without a mark, {separator!r}", content.encode(name), meant, suffix=suffix)
    yield text_case("utf-32", written().encode("utf-32"), MEANT)
    for separator, name in itertools.product((",", ";"), ("latin-1", "cp1252", "iso8859-15")):
        encoded = written(WESTERN, separator).encode(name)
        yield text_case(f"{name}, {separator!r}", encoded, WESTERN, "read as cp1252, a guess: 'Köln'")
    euros: Columns = {"price": ["5 €", "7 €", "9 €"], "“name”": ["naïve", "café", "Zürich"]}
    yield text_case("cp1252 with a euro and curly quotes", written(euros).encode("cp1252"), euros, "read as cp1252")
    named: Columns = {"größe": [1, 2], "straße": ["a", "b"]}
    yield text_case("latin-1 in the names only", written(named).encode("latin-1"), named, "'größe'")
    late = "a,b\n" + "1,x\n" * 400_000 + "1,Köln\n"
    many: Columns = {"a": [1] * 400_001, "b": ["x"] * 400_000 + ["Köln"]}
    yield text_case("latin-1 in the last row", late.encode("latin-1"), many, "'Köln'")
    others = {
        "cp1251": ["Москва", "Казань", "Санкт-Петербург", "Самара", "Тула", "Омск"],
        "koi8_r": ["Москва", "Казань", "Санкт-Петербург", "Самара", "Тула", "Омск"],
        "cp932": ["東京", "大阪", "カタカナ", "ひらがな", "札幌", "名古屋"],
        "gb18030": ["北京市", "上海市", "广州市", "深圳市", "天津市", "重庆市"],
        "euc_kr": ["서울", "부산", "인천", "대구", "대전", "광주"],
        "cp1253": ["Αθήνα", "Θεσσαλονίκη", "Πάτρα", "Βόλος", "Λάρισα", "Χανιά"],
    }
    for name, cities in others.items():
        table = {**MEANT, "city": [city for city in cities for _ in range(4)]}
        table |= {"rooms": [*range(24)], "price": [place + 0.5 for place in range(24)]}
        allowed: tuple[Outcome, ...] = ("said", "refused")
        yield text_case(name, written(table).encode(name), table, "a guess", allowed=allowed)
    mixed = "city,n\nKöln,1\n".encode() + "Zürich,2\n".encode("latin-1")
    yield text_case("UTF-8 and latin-1 in one file", mixed)
    yield text_case("NUL characters", b"a,b\n1,\0\0\n")


def headers() -> Iterator[Case]:
    """What stands above the names, names that are missing or repeat, and rows of another length."""
    plain: Columns = {"a": [1, 3], "b": [2, 4], "c": ["x", "y"]}
    content = written(plain)
    for above in ("# made by hand\n", "# one, two\n# three\n", "#\n"):
        yield text_case(f"comments {above!r}", above + content, plain, "comment")
    yield text_case("comments between rows", "# v\na,b,c\n1,2,x\n# w\n3,4,y\n", plain, "comment")
    for above in ("Report of 2024\n", "Report of 2024\n\n", "Report of 2024,,\nby Jo,,\n", "Report;\n"):
        yield text_case(f"titles {above!r}", above + content, plain, "skipped")
    yield text_case("names after a #", "# a,b,c\n1,2,x\n3,4,y\n", plain)
    yield text_case("a column called #", "#,b,c\n1,2,x\n3,4,y\n", {"#": [1, 3], "b": [2, 4], "c": ["x", "y"]})
    spaced = " a , b,c \n1,2,x\n3,4,y\n"
    yield text_case("names with spaces", spaced, plain)
    yield text_case("a name with a line break", '"a\nb",c\n1,2\n3,4\n', {"a b": [1, 3], "c": [2, 4]})
    for name, rows in {
        "measurements": "5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n6.2,2.9,Iris-virginica\n",
        "whole numbers": "5,3,1\n4,3,0\n6,2,1\n",
        "texts": "red,small,yes\nblue,small,no\nred,large,yes\nred,small,no\nblue,large,yes\n",
        "dates": "2024-01-02,5.5\n2024-01-03,6.5\n",
        "a text and numbers": "Bob,23,1.5\nAnn,31,1.7\nJo,44,1.8\n",
        "row numbers": "1,2,3\n4,5,6\n7,8,9\n",
    }.items():
        for separator in (",", ";"):
            yield text_case(f"no names: {name}, {separator!r}", rows.replace(",", separator))
    numbered: Columns = {"0": [0.5, 0.25], "1": [0.75, 1.5], "2": [3.5, 4.5]}
    yield text_case("names 0, 1, 2", written(numbered), numbered, "taken for names")
    years: Columns = {"country": ["DE", "FR"], "2019": [83.1, 67.2], "2020": [83.2, 67.4]}
    yield text_case("years as names", written(years), years, "taken for names")
    pixels: Columns = {"label": [5, 0], "0": [0, 255], "1": [7, 9]}
    yield text_case("a label and numbered columns", written(pixels), pixels)
    for name, header in {"equal names": "a,b,a", "names equal but for spaces": "a,b, a"}.items():
        yield text_case(name, f"{header}\n1,2,3\n4,5,6\n")
    for name, rows in {"a long row": "1,2,3\n4,5,6,7\n8,9,10\n", "a short row": "1,2,3\n4,5\n7,8,9\n"}.items():
        yield Case(KIND, f"ragged: {name}", _names_the_row(f"a,b,c\n{rows}", "row 3"), ("right",))
    index = ["", "Unnamed: 0", "__index_level_0__"]
    for name in index:
        indexed = f"{name},a,b\n0,1,2\n1,3,4\n"
        yield text_case(f"an index called {name!r}", indexed, {"a": [1, 3], "b": [2, 4]}, "has no name")
    shuffled = ",a,b\n7,1,2\n3,3,4\n7,5,6\n"
    yield text_case("an index in another order", shuffled, {"a": [1, 3, 5], "b": [2, 4, 6]}, "has no name")
    yield text_case(
        "names of rows as R writes them",
        '"a" "b"\n"x" 1 2\n"y" 3 4\n',
        {"a": [1, 3], "b": [2, 4]},
        "has no name",
        ".txt",
    )
    yield text_case(
        "names of rows as R writes them in CSV",
        '"","a","b"\n"x",1,2\n"y",3,4\n',
        {"a": [1, 3], "b": [2, 4]},
        "has no name",
    )
    yield text_case("a column without a name", "a,,b\n1,2,3\n4,5,6\n", {"a": [1, 4], "column 2": [2, 5], "b": [3, 6]})
    for name, other in {
        "JSON": '{"a": 1}\n',
        "JSON records": '[{"a": 1}]\n',
        "a web page": "<html><table></table>\n",
        "names only": "a,b\n",
        "nothing": "\n\n",
    }.items():
        yield text_case(f"{name} in .csv", other)


def _names_the_row(content: str, where: str) -> Callable[[Path], Outcome]:
    def read(folder: Path) -> Outcome:
        (folder / "table.csv").write_text(content)
        try:
            return ends(folder / "table.csv", {})
        except UserError as error:
            return "right" if where in str(error) and "instead of 3" in str(error) else "wrong"

    return read


def archives() -> Iterator[Case]:
    """Compressed files."""
    ways: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
        ".zip": lambda content: zipped(content.decode()),
    }
    for suffix, compress in ways.items():
        content = written().encode()
        yield text_case(f".csv{suffix}", compress(content), MEANT, suffix=f".csv{suffix}")
        tabs = written(separator="\t").encode()
        yield text_case(f".tsv{suffix}", compress(tabs), MEANT, suffix=f".tsv{suffix}")
        yield text_case(f"{suffix} alone", compress(content), MEANT, suffix=suffix)
        yield text_case(f"{suffix} called .csv", compress(content), MEANT)
        if suffix != ".zst":
            yield text_case(f"truncated {suffix}", compress(content * 50)[:60], suffix=f".csv{suffix}")
        western = written(WESTERN).encode("cp1252")
        if suffix != ".zip":
            yield text_case(f"latin-1 in {suffix}", compress(western), WESTERN, "cp1252", f".csv{suffix}")
    yield text_case(
        "two members of a gzip file",
        gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n"),
        {"a": [1, 3], "b": [2, 4]},
        suffix=".csv.gz",
    )
    yield text_case("several files in a zip archive", zipped(written(), "other.csv"), suffix=".zip")
    yield text_case("a file of macOS in a zip archive", zipped(written(), "__MACOSX/._table.csv"), MEANT, suffix=".zip")


def spreadsheets() -> Iterator[Case]:
    """Workbooks."""
    rows: list[list[Any]] = [list(MEANT), *map(list, zip(*MEANT.values(), strict=True))]
    titled: list[list[Any]] = [["Report of 2024", None, None], [None, None, None], *rows]
    margin: list[list[Any]] = [[], *([None, *row] for row in rows)]
    for suffix in (".xlsx", ".xlsm", ".xls", ".csv"):  # what a file is called is not what it is
        yield text_case(f"a workbook called {suffix}", xlsx({"Data": rows}), MEANT, suffix=suffix)
    yield text_case("a title above the names", xlsx({"Data": titled}), MEANT, "skipped", ".xlsx")
    yield text_case("a merged title above the names", xlsx({"Data": titled}, ["A1:C1"]), MEANT, "skipped", ".xlsx")
    yield text_case("empty rows and columns around the table", xlsx({"Data": margin}), MEANT, suffix=".xlsx")
    down: list[list[Any]] = [["group", "n"], ["a", 1], [None, 2], ["b", 3], [None, 4]]
    yield text_case(
        "merged cells of a column",
        xlsx({"Data": down}, ["A2:A3", "A4:A5"]),
        {"group": ["a", "a", "b", "b"], "n": [1, 2, 3, 4]},
        suffix=".xlsx",
    )
    yield text_case(
        "one sheet of two is empty", xlsx({"Notes": [["read me"]], "Data": rows}), MEANT, "sheet 'Data'", ".xlsx"
    )
    yield text_case("two sheets with tables", xlsx({"2023": rows, "2024": rows}), suffix=".xlsx")
    yield text_case(
        "a second table that is hidden", xlsx({"Data": rows, "Lists": rows}, hidden=["Lists"]), MEANT, suffix=".xlsx"
    )
    yield text_case("no table in any sheet", xlsx({"Data": []}), suffix=".xlsx")
    coded: Columns = {"zip": ["01234", "98765"], "n": [1, 2]}
    yield text_case(
        "codes with leading zeros", xlsx({"Data": [list(coded), ["01234", 1], ["98765", 2]]}), coded, suffix=".xlsx"
    )
    yield text_case(
        "no names in a sheet", xlsx({"Data": [[5.1, 3.5, "a"], [4.9, 3.0, "b"], [6.1, 2.9, "a"]]}), suffix=".xlsx"
    )
    indexed: list[list[Any]] = [[None, "a", "b"], [0, 1, 2], [1, 3, 4]]
    yield text_case("an index in a sheet", xlsx({"Data": indexed}), {"a": [1, 3], "b": [2, 4]}, "has no name", ".xlsx")
    yield text_case("equal names in a sheet", xlsx({"Data": [["a", "a"], [1, 2]]}), suffix=".xlsx")
    yield text_case(
        "gaps in a sheet",
        xlsx({"Data": [["a", "b"], [1, None], [None, "x"]]}),
        {"a": [1, None], "b": [None, "x"]},
        suffix=".xlsx",
    )
    yield text_case("OpenDocument", ods(rows), MEANT, suffix=".ods")
    yield text_case("OpenDocument with a title", ods(titled), MEANT, "skipped", ".ods")
    yield text_case("tabs called .xls", written(separator="\t"), MEANT, "tabs", ".xls")
    yield text_case("a web page called .xls", "<table><tr><td>a</td></tr></table>", suffix=".xls")
    yield text_case("a damaged workbook", xlsx({"Data": rows})[:300], suffix=".xlsx")


def columnar() -> Iterator[Case]:
    """Parquet and feather, what pandas adds to them, types that are of no use, and folders."""
    frame = pd.DataFrame(MEANT)
    writers: dict[str, Callable[..., Any]] = {".parquet": pd.DataFrame.to_parquet, ".feather": pd.DataFrame.to_feather}
    for suffix, write in writers.items():
        for called in (suffix, ".csv", ".arrow"):
            yield file_case(f"{suffix} called {called}", _writer(frame, write, f"table{called}"), MEANT)
        typed = frame.assign(
            city=frame["city"].astype("category"),
            rooms=frame["rooms"].astype("Int16"),
            price=frame["price"].astype("float32"),
        )
        yield file_case(f"categories and small numbers in {suffix}", _writer(typed, write, f"table{suffix}"), MEANT)
        nested = frame.assign(tags=pd.Series([["a"]] * 6), point=pd.Series([{"x": 1}] * 6))
        yield file_case(
            f"lists and structs in {suffix}", _writer(nested, write, f"table{suffix}"), MEANT, "cannot be used"
        )
        raw = frame.assign(image=[b"\1"] * 6)
        yield file_case(f"bytes in {suffix}", _writer(raw, write, f"table{suffix}"), MEANT, "cannot be used")
        spaced = frame.rename(columns={"price": " price "})
        yield file_case(f"names with spaces in {suffix}", _writer(spaced, write, f"table{suffix}"), MEANT)
    filtered = frame.set_axis(pd.Index([9, 4, 7, 1, 8, 2]))
    yield file_case(
        "an index that pandas saved", _writer(filtered, pd.DataFrame.to_parquet, "table.parquet"), MEANT, "has no name"
    )
    several = filtered.set_axis(pd.MultiIndex.from_product([[1, 2], [1, 2, 3]]))
    yield file_case(
        "an index of two levels", _writer(several, pd.DataFrame.to_parquet, "table.parquet"), MEANT, "has no name"
    )
    named = frame.set_index("city")
    yield file_case(
        "an index with a name",
        _writer(named, pd.DataFrame.to_parquet, "table.parquet"),
        {key: MEANT[key] for key in ("rooms", "price", "city")},
    )
    yield from _folders(frame)


def _folders(frame: pd.DataFrame) -> Iterator[Case]:
    parts = [frame.iloc[:3], frame.iloc[3:]]

    def folder_of(*files: tuple[str, pd.DataFrame]) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            for name, rows in files:
                (folder / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
                rows.to_parquet(folder / "rows" / name, index=False)
            return folder / "rows"

        return write

    yield file_case("a folder of files", folder_of(("1.parquet", parts[0]), ("2.parquet", parts[1])), MEANT, "2 files")
    hive = folder_of(("year=2023/a.parquet", parts[0]), ("year=2024/a.parquet", parts[1]))
    yield file_case("folders by year", hive, MEANT | {"year": [2023] * 3 + [2024] * 3}, "2 files")
    deep = folder_of(("land=D%C3%84/m=01/a.parquet", parts[0]), ("land=FR/m=02/a.parquet", parts[1]))
    yield file_case(
        "folders by country and month",
        deep,
        MEANT | {"land": ["DÄ"] * 3 + ["FR"] * 3, "m": [1] * 3 + [2] * 3},
        "2 files",
    )
    codes = folder_of(("zip=01234/a.parquet", parts[0]), ("zip=98765/a.parquet", parts[1]))
    yield file_case("folders by codes", codes, MEANT | {"zip": ["01234"] * 3 + ["98765"] * 3}, "2 files")
    gaps = folder_of(("y=1/a.parquet", parts[0]), ("y=__HIVE_DEFAULT_PARTITION__/a.parquet", parts[1]))
    yield file_case("folders with a gap", gaps, MEANT | {"y": [1] * 3 + [None] * 3}, "2 files")
    marked = folder_of(
        ("a.parquet", parts[0]), ("b.parquet", parts[1]), ("_tmp/c.parquet", parts[1]), (".d.parquet", parts[1])
    )
    yield file_case("files of the programs that write folders", marked, MEANT, "2 files")
    for kind in ("int32", "int8", "float64"):
        other = parts[1].assign(rooms=parts[1]["rooms"].astype(kind))
        yield file_case(
            f"int64 and {kind}", folder_of(("1.parquet", parts[0]), ("2.parquet", other)), MEANT, "in different files"
        )
    texts = parts[1].assign(rooms=parts[1]["rooms"].astype(str))
    yield file_case("numbers and texts", folder_of(("1.parquet", parts[0]), ("2.parquet", texts)), None)
    empty = parts[1].assign(rooms=pd.Series([None] * 3, index=parts[1].index, dtype=object))
    yield file_case(
        "a column without values",
        folder_of(("1.parquet", parts[0]), ("2.parquet", empty)),
        MEANT | {"rooms": [2, 3, 1, None, None, None]},
        "2 files",
    )
    lacking = folder_of(("1.parquet", parts[0]), ("2.parquet", parts[1].drop(columns="price")))
    yield file_case(
        "a column that a file lacks",
        lacking,
        MEANT | {"price": [*MEANT["price"][:3], None, None, None]},
        "is missing in 1 of 2 files",
    )
    turned = folder_of(("1.parquet", parts[0]), ("2.parquet", parts[1][["price", "city", "rooms"]]))
    yield file_case("columns in another order", turned, MEANT, "2 files")
    yield file_case("a folder without Parquet files", lambda folder: folder, None)


def _writer(frame: pd.DataFrame, write: Callable[..., Any], name: str) -> Callable[[Path], Path]:
    def written_file(folder: Path) -> Path:
        write(frame, folder / name)
        return folder / name

    return written_file


CASES: list[Case] = [*dialects(), *encodings(), *headers(), *archives(), *spreadsheets(), *columnar()]
