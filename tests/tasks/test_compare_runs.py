"""Two runs compared by the predictions that are kept with them."""

import numpy as np
import pandas as pd
import pytest

from tests.flows.tiny import published_run
from unfreeze.flows.commands import show
from unfreeze.tasks import tracking
from unfreeze.tasks.retraining.compare import compare_runs

pytestmark = pytest.mark.usefixtures("home_with_store")
SPEC = {"modality": "images", "data": {"source": "photos"}}


def run_with(predicted: np.ndarray, section: str, **columns: np.ndarray) -> str:
    """A run that predicted forty images of cats."""
    run_id = published_run("photos", SPEC)
    paths = [f"{number}.jpg" for number in range(len(predicted))]
    frame = pd.DataFrame({"path": paths, "label": "cat", "predicted": predicted, **columns})
    tracking.log_frame(run_id, frame, f"{section}/predictions.feather")
    return run_id


def cats(wrong: int) -> np.ndarray:
    return np.where(np.arange(40) < wrong, "dog", "cat")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(1, "no difference that 40 rows could show"), (5, "no difference"), (8, "the second is better")],
)
def test_the_second_run_is_called_better_only_where_the_interval_says_so(
    wrong: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show.comparison(compare_runs(run_with(cats(wrong), "test"), run_with(cats(0), "test")))
    assert said in capsys.readouterr().err


def test_images_of_one_group_are_no_evidence_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {"group": np.arange(40) // 8}  # all eight that differ are of one patient
    show.comparison(compare_runs(run_with(cats(8), "test", **groups), run_with(cats(0), "test", **groups)))
    printed = capsys.readouterr().err
    assert "no difference that 40 rows could show" in printed
    assert "5 blocks" in printed


@pytest.mark.parametrize(("section", "said"), [("valid", True), ("test", False)])
def test_it_is_said_where_the_rows_chose_the_models(
    section: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show.comparison(compare_runs(run_with(cats(1), section), run_with(cats(0), section)))
    assert ("validation rows chose the model" in capsys.readouterr().err) == said
