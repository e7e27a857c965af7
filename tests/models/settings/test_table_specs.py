"""The spec of a training on a table: its default works, and what does not fit together is refused."""

import pytest
from pydantic import ValidationError

from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables, completed


def test_the_embedded_default_has_its_date() -> None:
    assert completed(TrainTables()).data.date == ["date"]
    assert completed(build_spec(TrainTables, {"data": {"date": ["time_hour"]}})).data.date == ["time_hour"]
    assert completed(build_spec(TrainTables, {"data": {"source": "sales.csv"}})).data.date == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"source": "a.csv", "split": "last_days"}}, "needs a date column"),
        ({"data": {"split": "column"}}, "needs split_column"),
        ({"data": {"valid_fraction": 0.5, "test_fraction": 0.5}}, "leave nothing to train"),
        ({"data": {"date": ["day"], "test_fraction": 0.1}}, "the last days test by test_days"),
        ({"data": {"split": "random", "test_days": 7}}, "test_days is for split last_days, not random"),
        ({"recipe": [{"name": "head", "precompute": True, "lr": 0.1}]}, "precompute is for images"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainTables(**settings)
