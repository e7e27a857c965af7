import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict


def test_the_defaults_predict_the_digits_with_their_champion() -> None:
    params = Predict()
    assert (params.model, params.source, params.out) == ("digits-classifier@champion", "digits", "predictions.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.Parquet", "some.folder/a.feather"])
def test_an_output_has_one_of_three_formats(name: str) -> None:
    assert Predict(out=name).out == name


@pytest.mark.parametrize("name", ["a.xlsx", "predictions"])
def test_an_output_of_another_format_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"must end in \.feather, \.parquet or \.csv"):
        build_spec(Predict, {}, {"out": name})


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Predict.model_fields.values())
