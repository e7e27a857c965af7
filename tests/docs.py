"""Blocks of commands in the documentation, and a folder in which they can be run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tests.conftest import draw_stripes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL)


class Block(NamedTuple):
    """Commands (``sh``) or statements (``python``) of a page; `why` says why they are not run, if they are not."""

    page: str
    language: str
    text: str
    why: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
    for found in _BLOCK.finditer(page.read_text()):
        yield Block(name_of(page), found["language"], found["text"], found["why"] or "")


def name_of(page: Path) -> str:
    """``README.md``, or the path below docs/."""
    return page.relative_to(ROOT / "docs" if ROOT / "docs" in page.parents else ROOT).as_posix()


def commands(block: Block) -> list[str]:
    """The lines of a block of ``sh``, without comments; a line that ends in a backslash goes on in the next."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+# .*", "", each).strip() for each in lines) if line and line[0] != "#"]


def draw_user_files(folder: Path) -> None:
    """The files that the pages speak of: little images and little tables."""
    draw_stripes(folder / "photos", 30, seed=0)
    files = sorted((folder / "photos").rglob("*.png"))
    for file in files:  # a training enlarges images eight times at most: these are trained at 32 pixels
        Image.open(file).crop((0, 0, 4, 4)).save(file)
    (folder / "incoming").mkdir()
    for number, file in enumerate(files[:3]):
        (folder / "incoming" / f"{number}.png").write_bytes(file.read_bytes())
    Image.open(files[0]).convert("RGB").save(folder / "new.jpg")
    paths = [str(file.relative_to(folder)) for file in files]
    pd.DataFrame({"file": paths, "species": [file.parent.name for file in files]}).to_csv(
        folder / "labels.csv", index=False
    )
    (folder / "images").mkdir()
    tagged = []
    for number, file in enumerate(files):
        name = f"{file.parent.name}-{file.stem}"
        (folder / "images" / f"{name}.png").write_bytes(file.read_bytes())
        tags = [file.parent.name, *["late"] * (number % 3 == 0), *["red"] * (number % 4 == 0)]
        tagged.append((f"images/{name}.png", name, "|".join(reversed(tags) if number % 5 == 0 else tags)))
    pd.DataFrame(tagged, columns=["file", "id", "tags"]).to_csv(folder / "tags.csv", index=False)
    pd.DataFrame({"file": paths[:4]}).to_csv(folder / "paths.csv", index=False)
    (folder / "excluded.txt").write_text(f"{files[0]}\n")
    (folder / "recipe.yaml").write_text("data: {size: 32}\n")
    rng = np.random.default_rng(0)
    days = pd.date_range("2015-01-01", periods=60)
    sales = pd.DataFrame({"Store": np.repeat([1, 2, 3], 60), "Date": np.tile(days, 3), "Promo": np.tile([0, 0, 1], 60)})
    sales["Sales"] = (100 * sales["Store"] + 50 * sales["Promo"] + rng.normal(0, 5, len(sales))).round(2)
    sales.to_csv(folder / "sales.csv", index=False)
    pd.DataFrame({"Store": [1, 2, 3], "Type": ["a", "b", "a"]}).to_csv(folder / "stores.csv", index=False)
    (folder / "sales.yaml").write_text("data: {target: [Sales], date: [Date]}\n")
    coming = pd.DataFrame({"Store": [1, 2, 3], "Date": "2015-03-02", "Promo": [0, 1, 0], "Type": ["a", "b", "a"]})
    coming.to_csv(folder / "next_week.csv", index=False)
    own = [block.text for block in blocks(ROOT / "docs" / "howto" / "extend.md") if block.language == "python"]
    for name, text in zip(("scores.py", "parts.py"), own, strict=True):
        (folder / name).write_text(f"{text}\n")
