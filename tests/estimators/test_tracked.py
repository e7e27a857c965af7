"""A training that is tracked."""

from pathlib import Path

import pytest

from tests.estimators.test_images import TINY
from unfreeze import Images, load_model
from unfreeze.models.errors import UserError


@pytest.mark.slow
def test_a_tracked_training_is_a_run_with_a_registered_model(
    prefect_api: None, home_with_store: Path, tmp_path: Path
) -> None:
    model = Images("photos", tracked=True, **TINY).fit()
    assert len(model.run_id_) == 32
    assert model.metrics_["valid/accuracy"] > 0.8
    assert model.predict("new.jpg").tolist() == load_model("photos").predict("new.jpg").tolist() == ["across"]
    assert f"MLflow run <code>{model.run_id_}" in model.report(tmp_path / "r.html").path.read_text()
    with pytest.raises(UserError, match="there is no registered model"):
        load_model("photographs")
