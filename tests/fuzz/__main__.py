"""Try many cases: ``python -m tests.fuzz --cases 1000000``; ends with status 1 if one ended badly.

Each kind is tried in processes of its own, so that one that crashes is a finding as well.
"""

import argparse
import faulthandler
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

import tests.conftest  # noqa: F401  a home of its own
from tests.fuzz.endings import BATCH, SECONDS, Findings, try_kind
from tests.fuzz.every_kind import KINDS, counts

STRIDE = 10 * BATCH
"""Cases of one process."""


def main() -> int:
    """Try them and print a row for each kind."""
    parser = argparse.ArgumentParser(description="Try random inputs of every kind.")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(kind.name for kind in KINDS)} (default: all)")
    parser.add_argument("--cases", type=int, default=20_000, help="of all kinds together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other cases (default: %(default)s)")
    parser.add_argument("--words", action="store_true", help="print how the commonest refusals begin")
    options = parser.parse_args()
    chosen = [kind for kind in KINDS if not options.kinds or kind.name in options.kinds]
    wanted = counts(options.cases)
    if options.kinds:
        whole = sum(wanted[kind.name] for kind in chosen)
        wanted = {kind.name: wanted[kind.name] * options.cases // whole for kind in chosen}
    print(f"{'':20} {'cases':>9} {'results':>9} {'refusals':>9} {'bad':>5} {'ms a case':>9}")
    bad = []
    for kind in chosen:
        began = time.perf_counter()
        findings = Findings()
        for start in range(0, wanted[kind.name], STRIDE):
            count = min(STRIDE, wanted[kind.name] - start)
            found = _in_a_process(kind.name, count, options.seed * 1_000_000 + start // BATCH)
            findings.results += found.results
            findings.refusals += found.refusals
            findings.bad += found.bad
            findings.words += found.words
        taken = 1000 * (time.perf_counter() - began) / max(1, findings.cases)
        row = f"{findings.cases:9,} {findings.results:9,} {findings.refusals:9,} {len(findings.bad):5} {taken:9.2f}"
        print(f"{kind.name:20} {row}", flush=True)
        for line in findings.bad:
            print(f"  {line}", flush=True)
        for word, count in findings.words.most_common(12) if options.words else []:
            print(f"    {count:7,} {word}", flush=True)
        bad += findings.bad
    return 1 if bad else 0


def _in_a_process(name: str, count: int, first_seed: int) -> Findings:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(name, count, first_seed, theirs))
    process.start()
    theirs.close()
    try:
        found: Findings = ours.recv()
    except EOFError:
        found = Findings(bad=[f"{name}, seed {first_seed}: the process ended by itself, see its trace above"])
    process.join()
    return found


def _try(name: str, count: int, first_seed: int, to: Connection) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(SECONDS + count, exit=True)
    kind = next(kind for kind in KINDS if kind.name == name)
    to.send(try_kind(kind, count, first_seed))
    to.close()


if __name__ == "__main__":
    sys.exit(main())
