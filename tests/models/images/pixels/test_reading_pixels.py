"""Files of every depth and format, and groups, end as the benchmark of readings says they should."""

from pathlib import Path

import pytest

from benchmarks._reading import Case
from benchmarks._reading_pixels import CASES
from unfreeze.models.errors import UserError


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_a_case_ends_as_it_should(case: Case, tmp_path: Path) -> None:
    try:
        end = case.read(tmp_path)
    except UserError:
        end = "refused"
    assert end in case.allowed
