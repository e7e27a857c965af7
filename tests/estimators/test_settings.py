"""The constructors' keywords are settings of the specs, by which a wrong one is answered."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
from IPython.core.interactiveshell import InteractiveShell
from sklearn.base import clone

from unfreeze import Images, Tables
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainTables
from unfreeze.models.settings.fields import fields_by_name, kinds_of

KINDS = [Images, Tables]


@pytest.mark.parametrize("kind", KINDS)
def test_every_keyword_is_a_setting_of_its_type(kind: type[Images] | type[Tables]) -> None:
    parameters = inspect.signature(kind, eval_str=True).parameters
    fields = fields_by_name(kind().spec.__class__)
    assert set(kind.keywords) == set(parameters) - {"source", "config", "tracked", "unknown"}
    for keyword, name in kind.keywords.items():
        typed = set(kinds_of(parameters[keyword].annotation)) - {type(None)}
        wanted = set(kinds_of(fields[name].info.annotation)) - {type(None)}
        if keyword != "recipe" and list[str] not in wanted:  # lists are also taken as one text, recipes by their name
            assert typed == wanted or get_args(typed) == get_args(wanted), keyword


@pytest.mark.parametrize("kind", KINDS)
def test_every_keyword_is_described(kind: type[Images] | type[Tables]) -> None:
    described = str(kind.__doc__).partition("Parameters")[2].partition("Examples")[0]
    named = {name.strip() for line in described.splitlines() if line.startswith("    ") for name in line.split(",")}
    assert {name for name in kind._get_param_names() if name not in named} == set()


def test_settings_are_keywords_nested_dotted_a_file_or_a_spec() -> None:
    Path("wide.yaml").write_text("model: {width: 64}\n")
    specs = [
        Tables(config=config, target="Sales", date=["Date"]).spec
        for config in ({"model": {"width": 64}}, {"model.width": 64}, "wide.yaml", TrainTables(model={"width": 64}))
    ]
    assert all(spec == specs[0] for spec in specs)
    assert isinstance(specs[0], TrainTables)
    assert (specs[0].data.target, specs[0].data.date, specs[0].model.width) == (["Sales"], ["Date"], 64)


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_can_be_cloned_changed_and_printed(kind: type[Images] | type[Tables]) -> None:
    model = kind("photos", seed=3, config={"keep": "trained"})
    other = clone(model).set_params(seed=4)
    assert (other.source, other.spec.seed, model.spec.seed) == ("photos", 4, 3)
    assert "seed=3" in repr(model)
    assert "seed=3" in model._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bakbone": "resnet34"}, r"bakbone: unknown setting; did you mean backbone\?"),
        ({"tta": {}}, r"tta: no keyword of Images; write config={'tta': \.\.\.}"),
        ({"cycles": 2}, r"write config={'recipe\.full\.cycles': \.\.\.}"),
        ({"quality": 2}, r"quality: no keyword of Images; keywords: augment, backbone,"),
        ({"size": 3}, r"data\.size: given 3; allowed: whole number, 16 to 1024"),
        ({"config": {"model.bakbone": 1}}, r"model\.bakbone: unknown setting; did you mean model\.backbone\?"),
        ({"config": "absent.yaml"}, r"there is no file absent\.yaml"),
        ({"config": 3}, "config: given a int; give a mapping"),
    ],
)
def test_a_wrong_setting_is_answered_by_what_to_write(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Images("photos", **settings)
    assert "\n" not in str(caught.value)


def test_a_notebook_shows_a_wrong_setting_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    InteractiveShell().run_cell("from unfreeze import Images\nImages('photos', bakbone='resnet34')")
    assert capsys.readouterr().out == "UserError: bakbone: unknown setting; did you mean backbone?\n"
