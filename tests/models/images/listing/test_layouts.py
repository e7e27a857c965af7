"""Layouts of folders and tables: every case of the benchmark ends as it should."""

import pytest

from benchmarks._reading import Case
from benchmarks._reading_layouts import CASES
from benchmarks.reading import outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layout_is_read_as_it_is_meant_or_refused(case: Case) -> None:
    assert outcome(case) in case.allowed
