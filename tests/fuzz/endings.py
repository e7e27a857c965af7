"""How a case may end: with a result, or with one clear line that says where the problem is."""

import random
import signal
import sys
import tempfile
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from unfreeze.models.errors import UserError

SECONDS = 20
"""A case takes about a millisecond: one that takes this long does not end."""
LONGEST = 3_000
"""Characters of a message that a person reads to its end."""
BATCH = 2_000
"""Cases of one run of hypothesis, which remembers all of them."""


class BadEnding(AssertionError):
    """A case ended neither with a result nor with one clear line."""


class _Endless(BaseException):
    """Nobody who catches errors catches it."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes
    ----------
    name
        For people.
    cases
        What to try; a case is plain data, so that its `repr` is a test.
    run
        Reads a case, with files in a folder of its own. Returns None, or the text of a refusal that is no `UserError`.
    share
        Of all cases, relative to the other kinds' shares: small where a case takes long.
    places
        One of these is in every refusal: it says where. Files of the folder need not be given.
    found
        Cases that ended badly once.
    """

    name: str
    cases: SearchStrategy[Any]
    run: Callable[[Any, Path], str | None]
    share: float = 1
    places: Callable[[Any], Collection[str]] = lambda case: ()
    found: Sequence[Any] = ()


@dataclass
class Findings:
    """What the cases of a kind came to."""

    results: int = 0
    refusals: int = 0
    bad: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)
    """The first words of refusals, which show what the cases reach."""

    @property
    def cases(self) -> int:
        """How many were tried."""
        return self.results + self.refusals


def try_case(kind: Kind, case: Any, folder: Path) -> str | None:
    """None for a result, or the text of the refusal; raises `BadEnding`."""
    with _time_limit(), warnings.catch_warnings(record=True) as warned:
        warnings.resetwarnings()  # whoever ignores some says so again
        warnings.simplefilter("always")
        try:
            refusal = kind.run(case, folder)
        except UserError as error:
            refusal = str(error)
        except _Endless as error:
            raise BadEnding(f"no end within {SECONDS} s") from error
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise BadEnding(f"{type(error).__name__}: {error} ({where})") from error
    if warned:
        where = f"{Path(warned[0].filename).name}, line {warned[0].lineno}"
        raise BadEnding(f"{len(warned)} x {warned[0].category.__name__}: {warned[0].message} ({where})")
    if refusal is not None and (problem := problem_of(refusal, [*kind.places(case), str(folder)])):
        raise BadEnding(f"{problem}: {refusal!r}")
    return refusal


def problem_of(message: str, places: Collection[str]) -> str:
    """Why a message is not one clear line; empty if it is.

    A line each for several problems is as clear.
    """
    problems = {
        "the message is empty": not message.strip(),
        "the message is endless": len(message) > LONGEST,
        "the message cannot be printed": any(
            unicodedata.category(each) in ("Cc", "Cs") for each in message.replace("\n", "")
        ),
        "the message has empty lines": any(not line.strip() for line in message.split("\n")),
        "the message is for programmers": "Traceback (most" in message or " object at 0x" in message,
        "the message does not say where": bool(places) and not any(place in message for place in places),
    }
    return next((problem for problem, holds in problems.items() if holds), "")


def try_kind(kind: Kind, count: int, first_seed: int) -> Findings:
    """Try so many cases; the same seed gives the same ones. The first that ends badly is reported, as it is."""
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for number in range(first_seed, sys.maxsize):
            left = count - findings.cases
            if left <= 0 or findings.bad:
                break
            before = findings.cases
            if problem := _try_batch(kind, min(left, BATCH), number, folder, findings):
                findings.bad.append(problem)
            elif findings.cases == before:
                break
    return findings


def _try_batch(kind: Kind, count: int, number: int, folder: Path, findings: Findings) -> str:
    """Try a batch; the text of the first case that ended badly, if there was one."""
    first: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # to make a case smaller can take longer than a thousand others
    )
    @given(case=kind.cases)
    def ends_well(case: Any) -> None:
        random.seed(number)
        try:
            refusal = try_case(kind, case, folder)
        except BadEnding:
            first[:] = first or [case]
            raise
        if refusal is None:
            findings.results += 1
        else:
            findings.refusals += 1
            findings.words[" ".join(refusal.replace(str(folder), "").split()[:6])] += 1

    try:
        ends_well()
    except BadEnding as bad:
        return f"{kind.name}, seed {number}: {bad}\n  case: {first[0]!r}"
    return ""


@contextmanager
def _time_limit() -> Iterator[None]:
    def ended(*_: object) -> None:
        raise _Endless

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
