import re

import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.names import LONGEST_FOLDER, check_experiment_name, check_registry_name, safe_name
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.retrain import Retrain
from unfreeze.models.settings.tables import TrainTables


@pytest.mark.parametrize(
    "name",
    ["a/b:c", "../../evil", "a/b", "a:b", "", "  ", ".", "..", "..a", "a\nb", "a\0b", "a\tb", "it's", "a?b", "\ud800"],
)
def test_a_registry_name_that_mlflow_refuses_or_loses_is_refused(name):
    with pytest.raises(ValueError, match="name must"):
        check_registry_name(name)


@pytest.mark.parametrize("name", ["cats-dogs", "Hunde und Katzen", "猫", "😀", ".a", "a.b", "a#b", "x" * 256])
def test_any_other_registry_name_is_taken(name):
    assert check_registry_name(name) == name


@pytest.mark.parametrize("name", ["../../evil", "..", "a/./b", "a\\..\\b", " ", "a\nb", "\0", "x" * 257, "\ud800"])
def test_an_experiment_name_that_walks_up_folders_or_is_no_text_is_refused(name):
    with pytest.raises(ValueError, match="name must"):
        check_experiment_name(name)


@pytest.mark.parametrize("name", ["unfreeze", "team/cats", "猫と犬", "a/b:c", "it's a test", "..."])
def test_any_other_experiment_name_is_taken(name):
    assert check_experiment_name(name) == name


@pytest.mark.parametrize("spec", [TrainImages, TrainTables])
@pytest.mark.parametrize(("field", "value"), [("tracking.model_name", "a/b:c"), ("tracking.experiment", "../../evil")])
def test_a_training_refuses_bad_names_in_one_line_that_names_the_field(spec, field, value):
    with pytest.raises(UserError) as refused:
        build_spec(spec, {}, {field: value})
    assert str(refused.value).startswith(f"{field}: given {value!r}; ")
    assert "\n" not in str(refused.value)


def test_a_retraining_refuses_a_name_that_no_model_can_have():
    with pytest.raises(UserError, match="model: given 'a/b'"):
        build_spec(Retrain, {}, {"model": "a/b"})


@given(st.text())
def test_the_folder_of_any_experiment_is_one_plain_part_of_a_path(name):
    folder = safe_name(name)
    assert re.fullmatch(r"\w[\w. -]*", folder)
    assert len(folder.encode()) <= LONGEST_FOLDER


@given(st.sets(st.text(), min_size=2, max_size=5))
def test_different_experiments_have_different_folders(names):
    assert len({safe_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["unfreeze", "cats and dogs", "猫", "v1.2_b"])
def test_a_plain_name_is_its_own_folder(name):
    assert safe_name(name) == name
