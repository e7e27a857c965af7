"""Whatever the input is, it ends in a result or in one clear line that says where the problem is."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.endings import Kind, problem_of, try_case, try_kind
from tests.fuzz.every_kind import KINDS, counts

FEW, MANY = 300, int(os.environ.get("FUZZ_CASES", "20000"))


@pytest.mark.parametrize(
    ("kind", "case"),
    [pytest.param(kind, case, id=f"{kind.name} {number}") for kind in KINDS for number, case in enumerate(kind.found)],
)
def test_what_ended_badly_once_ends_well(kind: Kind, case: Any, tmp_path: Path) -> None:
    try_case(kind, case, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_few_inputs_of_every_kind_end_well(kind: Kind) -> None:
    findings = try_kind(kind, counts(FEW)[kind.name], first_seed=0)
    assert not findings.bad, findings.bad[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_many_inputs_of_every_kind_end_well(kind: Kind) -> None:
    findings = try_kind(kind, counts(MANY)[kind.name], first_seed=1000)
    assert not findings.bad, findings.bad[0]
    assert findings.results > 0


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "empty"),
        ("no such file", "where"),
        ("data.source: \x1b[31m", "printed"),
        ("data.source: <Reader object at 0x7f00>", "programmers"),
        ("data.source: " + 4000 * "x", "endless"),
    ],
)
def test_a_line_that_is_not_clear_is_noticed(message: str, problem: str) -> None:
    assert problem in problem_of(message, ["data."])
