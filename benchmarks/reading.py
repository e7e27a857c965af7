"""Files as people have them: how many are read as they are meant, read by a guess that is said, refused, or misread.

Every case writes its own files and knows what they mean. `--kind NAME` runs one kind, `--cases` names those that end
otherwise than they should.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from benchmarks._reading import Case, Outcome
from benchmarks._reading_columns import CASES as COLUMNS
from benchmarks._reading_files import CASES as FILES
from benchmarks._reading_layouts import CASES as LAYOUTS
from benchmarks._reading_leaks import CASES as LEAKS
from benchmarks._reading_pixels import CASES as PIXELS
from unfreeze.models.errors import UserError

CASES: list[Case] = [*COLUMNS, *FILES, *LEAKS, *LAYOUTS, *PIXELS]
"""All cases, kind by kind."""


def outcome(case: Case) -> Outcome:
    """Run one case in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="unfreeze-reading-") as folder:
        try:
            return case.read(Path(folder))
        except UserError:
            return "refused"


def main() -> int:
    """Run the cases, print a row a kind; the status is 1 if any is misread in silence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", help="run the cases of this kind only")
    parser.add_argument("--cases", action="store_true", help="name the cases that end otherwise than they should")
    arguments = parser.parse_args()
    found = {case: outcome(case) for case in CASES if arguments.kind in (None, case.kind)}
    table = Table("kind", "cases", *get_args(Outcome))
    for kind in dict.fromkeys(case.kind for case in found):
        counts = Counter(end for case, end in found.items() if case.kind == kind)
        table.add_row(kind, str(counts.total()), *[str(counts[end]) for end in get_args(Outcome)])
    totals = Counter(found.values())
    table.add_row("all", str(len(found)), *[str(totals[end]) for end in get_args(Outcome)])
    Console(width=100).print(table)
    for case, end in found.items():
        if arguments.cases and end not in case.allowed:
            print(f"{case.kind}: {case.name}: {end}, not {' or '.join(case.allowed)}")
    return int(totals["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
