"""Several labels per image through every command: train, predict, sweep, compare, retrain."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SQUARES, draw_squares
from tests.flows.tiny import tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.predict import Predict
from unfreeze.models.settings.retrain import PromotionSpec, Retrain
from unfreeze.models.store.workspace import Workspace
from unfreeze.tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_api")

IDS = {
    "data.path_column": "id",
    "data.label_column": "tags",
    "data.label_separator": ";",
    "data.image_folder": "images",
    "data.suffix": ".png",
    "tracking.model_name": "squares-classifier",
}
RECIPE = [
    {"name": "head", "precompute": True, "lr": 0.01},
    {"name": "full", "train": "all", "lr": 0.01, "ratio": 1, "cycles": 6},
]


def squares(folder: Path, count: int = 120) -> Path:
    """A table of ids and labels, and the images beside it."""
    source = folder / "squares.csv"
    draw_squares(folder / "images", count, seed=0).to_csv(source, index=False)
    return source


def training(source: Path, **overrides: Any) -> Any:
    return tiny_training(source, **{"recipe": RECIPE, **IDS, **overrides})


def trained(source: Path, **overrides: Any) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    result: dict[str, Any] = train_images(training(source, **overrides))
    return result


@pytest.mark.slow
def test_a_model_of_several_labels_is_trained_predicts_is_served_and_retrained(
    home_with_store: Path, tmp_path: Path, log_lines: list[str]
) -> None:
    from unfreeze.flows.predict import predict
    from unfreeze.flows.retrain import retrain

    source = squares(tmp_path)
    result = trained(source, **{"data.test_fraction": 0.15})
    assert "any number of labels per image, separated by `;`" in "\n".join(log_lines)
    assert result["metrics"]["valid/f1"] > 0.8
    assert {"valid/map", "valid/auc_tta", "baseline/f1"} <= result["metrics"].keys()
    assert {"test/f2_low", "test/f2_high"} <= result["metrics"].keys()
    per_label = pd.read_feather(tracking.fetch(result["run_id"], "valid/per_label.feather"))
    assert per_label["label"].tolist() == sorted(SQUARES)

    out = tmp_path / "out.csv"
    ids = pd.read_csv(source)[["id"]]
    ids.to_csv(tmp_path / "ids.csv", index=False)
    table = {"path_column": "id", "image_folder": "images", "suffix": ".png", "top_k": 3}
    predicted = predict(Predict(model="squares", source=str(tmp_path / "ids.csv"), out=str(out), device="cpu", **table))
    assert (predicted["rows"], predicted["unreadable"]) == (120, 0)
    assert {row["label"] for row in predicted["table"]} >= set(SQUARES)
    frame = pd.read_csv(out, keep_default_na=False)
    assert frame.columns.tolist()[1:5] == ["labels", "label", "probability", "label_2"]
    known = pd.read_csv(source, keep_default_na=False).set_index("id")["tags"]
    pairs = zip(frame["path"], frame["labels"], strict=True)
    right = [set(text.split("|")) - {""} == set(known[name].split(";")) - {""} for name, text in pairs]
    assert np.mean(right) > 0.7

    import mlflow

    model = mlflow.pyfunc.load_model(result["model_uri"])
    image = (tmp_path / "images" / "0-0.png").read_bytes()
    answer = model.predict(pd.DataFrame({"image": [image]}))
    assert "|".join(answer["labels"][0]) == frame.loc[frame["path"] == "0-0", "labels"].item()

    assert retrain(Retrain(model="squares"))["decision"] == "no new data"
    more = draw_squares(tmp_path / "images", 20, seed=1)
    pd.concat([pd.read_csv(source, keep_default_na=False), more]).to_csv(source, index=False)
    again = retrain(Retrain(model="squares", promotion=PromotionSpec(margin=1)))
    assert again["decision"] == "kept champion"
    assert again["comparison"]["metric"] == "f1"
    assert again["comparison"]["test"] == "paired bootstrap"
    assert {row["class"] for row in again["comparison"]["classes"]} == set(SQUARES)
    assert {row["what"] for row in again["drift"]} >= {"class balance", "feature space"}


@pytest.mark.slow
def test_two_runs_are_compared_by_their_labels_and_a_sweep_takes_them_as_well(
    home_with_store: Path, tmp_path: Path
) -> None:
    from unfreeze.flows.sweep import sweep
    from unfreeze.models.settings.search import Dimension, SweepSpec
    from unfreeze.tasks.retraining.compare import compare_runs

    source = squares(tmp_path, 80)
    first = trained(source, recipe=RECIPE[:1], keep="trained")
    second = trained(source, keep="trained")
    compared = compare_runs(first["run_id"], second["run_id"])
    assert compared["comparison"]["metric"] == "f1"
    assert compared["comparison"]["improvement"] > 0
    assert {row["class"] for row in compared["comparison"]["classes"]} == set(SQUARES)
    search = SweepSpec(
        trials=2, objectives=["f1"], space=[Dimension(name="recipe.head.lr", low=1e-3, high=0.1, log=True)]
    )
    swept = sweep(search, training(source, recipe=RECIPE[:1], metrics=["f1"]))
    assert swept["trials"]["complete"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer.loss": "focal"}, r"optimizer\.loss: focal is for classification, and this is multi-label"),
        ({"optimizer.class_weights": "balanced"}, r"optimizer\.class_weights: balanced is for one class per row"),
        ({"metrics": ["kappa"]}, "'kappa' does not fit multi-label classification"),
    ],
)
def test_what_cannot_work_is_refused_before_training_and_with_a_setting_before_anything_is_read(
    home_with_store: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trained(tmp_path / "nothing.csv", **settings, **{"data.labels": "multiple"})
    data = modality("images")
    spec = training(squares(tmp_path, 40), **settings)
    prepared = data.prepare(spec, Workspace(tmp_path / "workspace"))
    with pytest.raises(UserError, match=message):
        data.bind(spec, prepared).learner()


@pytest.mark.slow
def test_a_model_of_one_class_is_not_retrained_for_several_labels(home_with_store: Path, tmp_path: Path) -> None:
    from unfreeze.flows.retrain import retrain

    source = squares(tmp_path, 60)
    frame = pd.read_csv(source, keep_default_na=False)
    frame["tags"] = np.where(frame["tags"].str.contains("red"), "red", "other")
    frame.to_csv(source, index=False)
    trained(source, recipe=RECIPE[:1], **{"data.label_separator": None})
    squares(tmp_path, 60)
    with pytest.raises(UserError, match=r"any number of labels per image, and the training of .* had one label"):
        retrain(Retrain(model="squares", changes={"data.labels": "multiple"}))
