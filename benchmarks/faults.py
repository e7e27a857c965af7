"""Everything that a machine, a network or a person does to a command: how many cases end as if nothing had been.

``python -m benchmarks.faults --kill-train 200 --bit-flip 200 --folder faults`` can be stopped and continued: every case
is a line of ``faults/cases.jsonl``, and only those that are missing are tried. Each row has a count; those that are not
named take ``--each``. A command is disturbed at a random moment of the time that it takes undisturbed, and continued
by the command that it printed, or by the same one; in a flip, one bit of one kept file flips in between.

==========  ===========================================================================
right       what an undisturbed command comes to, to the last bit
lost        an error that says what is wrong, or a training that began again
doubled     right, but MLflow has steps or models twice
wrong       another result, or an end without a message
==========  ===========================================================================
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._fault_cases import OUTCOMES
from benchmarks._fault_kinds import ROWS


def main() -> None:
    """Try the cases that are missing and print the table."""
    parser = argparse.ArgumentParser(description="Commands that are killed, cut off, or run out of disk.")
    parser.add_argument("--folder", type=Path, help="keeps cases and references (default: a temporary folder)")
    parser.add_argument("--each", type=int, default=1, help="cases of every row not named (default: %(default)s)")
    flags = {row: row.lower().replace(" ", "-") for row in ROWS}
    for row, flag in flags.items():
        parser.add_argument(f"--{flag}", dest=row, type=int, metavar="CASES", help=f"cases of {row!r}")
    options = vars(parser.parse_args())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and disks end with it
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options["folder"] or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'':16} {'tried':>6} " + " ".join(f"{outcome:>8}" for outcome in OUTCOMES), flush=True)
        for row in ROWS:
            wanted = options["each"] if options[row] is None else options[row]
            found = Counter(case["outcome"] for case in cases(folder, row, wanted))
            print(f"{row:16} {found.total():6} " + " ".join(f"{found[outcome]:8}" for outcome in OUTCOMES), flush=True)


def cases(folder: Path, row: str, wanted: int) -> list[dict[str, Any]]:
    """The first `wanted` cases of a row, those that were not tried yet among them."""
    log = folder / "cases.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found = [case for case in known if case["kind"] == row][:wanted]
    for number in range(len(found), wanted):
        case = {"kind": row, "number": number, **ROWS[row](folder, random.Random(f"{row} {number}"))}
        with log.open("a") as file:
            file.write(f"{json.dumps(case)}\n")
        found.append(case)
    return found


if __name__ == "__main__":
    main()
