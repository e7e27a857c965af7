"""The short form, through a real Prefect API and a real MLflow store."""

from pathlib import Path

import pytest

from unfreeze.models.errors import UserError

pytestmark = pytest.mark.usefixtures("prefect_api")

BACKBONE = "timm/tf_efficientnet_lite0"


@pytest.mark.slow
def test_five_settings_train_a_classifier_within_a_budget(stripes: Path, home_with_store: Path) -> None:
    from unfreeze.flows.train_images import train_short
    from unfreeze.tasks.tracking import spec_of

    result = train_short(str(stripes), BACKBONE, 32, 1.0, 3)
    spec = spec_of(result["run_id"])
    assert (spec["data"]["source"], spec["model"]["backbone"]) == (str(stripes), BACKBONE)
    assert (spec["data"]["size"], spec["seed"]) == (32, 3)
    assert "valid/accuracy" in result["metrics"]
    assert spec["optimizer"]["batch_size"]  # as it was planned and measured


def test_wrong_values_end_the_run_before_anything_is_read(stripes: Path, home_with_store: Path) -> None:
    from unfreeze.flows.train_images import train_short

    with pytest.raises(UserError, match="did you mean"):
        train_short(str(stripes), "resnet43")
    with pytest.raises(UserError, match="hours: even one epoch of every stage takes"):
        train_short(str(stripes), BACKBONE, 32, 1e-6)


def test_the_form_has_five_fields_each_described() -> None:
    from prefect.utilities.callables import parameter_schema

    from unfreeze.flows.train_images import train_short

    fields = parameter_schema(train_short).properties
    assert list(fields) == ["source", "backbone", "size", "hours", "seed"]
    assert all(each["description"] for each in fields.values())
