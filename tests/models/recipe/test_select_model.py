"""The model that a training ends with is the best of several on the validation rows."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.models.conftest import assert_same
from tests.models.targets.test_targets import titles_of
from unfreeze.models.evaluation.calibration import expected_calibration_error
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.images import evaluation
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.recipe import run
from unfreeze.models.recipe.run import Evaluate, SelectModel, Step, Train, run_recipe
from unfreeze.models.recipe.state import Record, TrainingState
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.settings import Stage
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets.temperature import Calibration, calibrate
from unfreeze.models.training.checkpoints import load_checkpoint, save_checkpoint

STAGES = [
    Stage(name="head", precompute=True, lr=0.01, cycles=3),
    Stage(name="full", train="all", lr=0.01, ratio=3, cycles=1),
]


def data_with(tiny_recipe: ImageData, stages: list[Stage], **changes: Any) -> ImageData:
    params = tiny_recipe.params.model_copy(update={"recipe": stages, **changes})
    return ImageData(params, tiny_recipe.prepared)


class Done(NamedTuple):
    """A step that has run, and what it found."""

    step: Step
    found: Findings


def trained(data: ImageData, folder: Path, record: Record | None = None) -> list[Done]:
    """Every step, done."""
    steps = []
    for step in run_recipe(data, Workspace(folder), record):
        found = Findings()
        if isinstance(step, Train):
            for _ in step.run():
                pass
        elif isinstance(outcome := step.run(), Findings):
            found = outcome
        steps.append(Done(step, found))
    return steps


def choice_of(steps: list[Done]) -> tuple[TrainingState, dict[str, float]]:
    """The state, and validation losses by candidate."""
    ((choose, found),) = [done for done in steps if isinstance(done.step, SelectModel)]
    return choose.state, {name: loss for name, loss in found.metrics.items() if name.startswith("choice/")}


def test_a_full_stage_that_harms_is_not_kept(tiny_recipe, tmp_path):
    harmful = STAGES[1].model_copy(update={"lr": 1.0, "ratio": 1})
    state, losses = choice_of(trained(data_with(tiny_recipe, [STAGES[0], harmful]), tmp_path))
    assert losses["choice/head"] < losses["choice/full"]
    assert state.kept.name != "full"
    assert f"choice/{state.kept.name.replace(' ', '_')}" == min(losses, key=lambda name: losses[name])


def test_every_candidate_is_compared(tiny_recipe, tmp_path):
    _, losses = choice_of(trained(data_with(tiny_recipe, STAGES), tmp_path))
    assert set(losses) == {
        "choice/full",
        "choice/head",
        "choice/mean_of_head_and_all_weights",
        "choice/logistic_regression",
    }


REGRESSION = Stage(name="head", precompute=True, regression=True, views=1)


def test_a_head_fitted_by_regression_is_where_all_layers_begin(tiny_recipe, tmp_path):
    model = tiny_recipe.params.model.model_copy(update={"head": None})
    still = STAGES[1].model_copy(update={"lr": 1e-9, "ratio": 1, "freeze_batchnorm": True})
    data = data_with(tiny_recipe, [REGRESSION, still], model=model)
    state, losses = choice_of(trained(data, tmp_path))
    assert set(losses) == {"choice/full", "choice/logistic_regression", "choice/full_and_logistic_regression"}
    assert losses["choice/full"] == pytest.approx(losses["choice/logistic_regression"], rel=1e-3)
    rows = [state.activations(0)["train", view] for view in (0, 1)]
    views = [StoredRows(file).gather(np.arange(len(data.rows["train"]))).numpy() for file in rows]
    fitted = fit_linear_head(views, data.targets("train"), len(data.index.classes))
    assert_same(fitted, state.learner.head_alone)
    assert state.record.results[0]["stopped"] == "fitted by logistic regression"


def test_class_weights_reach_the_head_that_is_fitted(tiny_recipe, tmp_path):
    optimizer = tiny_recipe.params.optimizer.model_copy(update={"class_weights": "balanced"})
    model = tiny_recipe.params.model.model_copy(update={"head": None})
    data = data_with(tiny_recipe, [REGRESSION], model=model, optimizer=optimizer)
    data.target.class_weights = np.array([1.0, 9.0, *[1.0] * (len(data.index.classes) - 2)])
    files = data.precompute(data.learner(), 0, Workspace(tmp_path))
    weighed = data.regressed_head(files)
    data.target.class_weights = None
    plain = data.regressed_head(files)
    assert not torch.equal(weighed["0.bias"], plain["0.bias"])


def test_a_head_fitted_by_regression_is_kept_alone(tiny_recipe, tmp_path):
    data = data_with(tiny_recipe, [REGRESSION], model=tiny_recipe.params.model.model_copy(update={"head": None}))
    state, losses = choice_of(trained(data, tmp_path))
    assert set(losses) == {"choice/logistic_regression"}
    assert state.kept.name == "logistic regression"


def test_the_network_as_trained_is_kept_where_it_is_asked_for(tiny_recipe, tmp_path):
    harmful = STAGES[1].model_copy(update={"lr": 1.0, "ratio": 1})
    state, losses = choice_of(trained(data_with(tiny_recipe, [STAGES[0], harmful], keep="trained"), tmp_path))
    assert state.kept.name == "full"
    assert set(losses) == {"choice/full"}


def test_without_a_frozen_stage_the_network_is_alone(tiny_recipe, tmp_path):
    _, losses = choice_of(trained(data_with(tiny_recipe, STAGES[1:]), tmp_path))
    assert set(losses) == {"choice/full"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "head", "mean of head and all weights", "logistic regression"])
def test_what_is_saved_predicts_what_was_evaluated(tiny_recipe, tmp_path, name):
    data = data_with(tiny_recipe, STAGES)
    state, _ = choice_of(trained(data, tmp_path))
    (candidate,) = [each for each in data.candidates(state.learner, 1, state.activations, ()) if each.name == name]
    expected = data.predictions(state.learner, candidate, state.activations(candidate.position), "valid")
    expected = np.sqrt(expected) / np.sqrt(expected).sum(1, keepdims=True)
    data.save(tmp_path / "model", replace(candidate, temperature=2.0))
    paths = [data.index.rows["path"][int(row)].as_py() for row in data.rows["valid"]]
    # Evaluated on activations of half precision, which have 11 bits: 5e-4 relative, less in the probabilities.
    np.testing.assert_allclose(ImagePredictor(tmp_path / "model", "cpu").probabilities(paths), expected, atol=2e-4)


@pytest.mark.slow
def test_comparing_leaves_the_trained_network_as_it_was(tiny_recipe, tmp_path):
    data = data_with(tiny_recipe, STAGES)
    state, _ = choice_of(trained(data, tmp_path))
    before = state.learner.state()
    SelectModel(state, 1).run()
    assert_same(state.learner.state(), before)
    head = state.learner.network.head
    assert isinstance(head, nn.Sequential)
    assert len(head) == 7  # the course's head, not that of a candidate


@pytest.mark.slow
def test_a_resumed_training_compares_the_same_candidates(tiny_recipe, tmp_path):
    data = data_with(tiny_recipe, STAGES)
    _, losses = choice_of(trained(data, tmp_path / "whole"))
    first, *_ = [
        step for step, _ in trained(data_with(tiny_recipe, STAGES[:1]), tmp_path / "part") if isinstance(step, Train)
    ]
    record = Record(results={0: first.result})
    head = run_recipe(data, Workspace(tmp_path / "part"))
    for step in head:  # until the full stage has begun, where it is stopped with a checkpoint
        if isinstance(step, Train) and step.stage.name == "full":
            next(iter(step.run()))
            save_checkpoint(step.state.learner, tmp_path / "stopped.safetensors")
            break
        for _ in step.run() if isinstance(step, Train) else [step.run()]:
            pass
    record.checkpoint = load_checkpoint(tmp_path / "stopped.safetensors")
    record.evaluated = {"baseline"}
    _, resumed = choice_of(trained(data, tmp_path / "part", record))
    assert resumed == losses


def test_the_test_rows_take_no_part_in_the_choice(tiny_recipe, tmp_path):
    data = data_with(tiny_recipe, STAGES)
    half = len(data.rows["valid"]) // 2
    data.rows = {**data.rows, "test": data.rows["valid"][half:], "valid": data.rows["valid"][:half]}
    steps = trained(data, tmp_path)
    evaluated = [step.section for step, _ in steps if isinstance(step, Evaluate)]
    assert evaluated == ["baseline", "valid", "test"]
    data.targets, targets = lambda split: torch.zeros(0).numpy() if split == "test" else targets(split), data.targets
    (choose,) = [step for step, _ in steps if isinstance(step, SelectModel)]
    again, losses = choose.run().metrics, choice_of(steps)[1]
    assert {name: again[name] for name in losses} == losses


def test_a_test_has_intervals_around_its_metrics(tiny_recipe, tmp_path):
    data = data_with(tiny_recipe, STAGES[:1])
    data.rows = {**data.rows, "test": data.rows["valid"]}
    (found,) = [
        found.metrics
        for step, found in trained(data, tmp_path)
        if isinstance(step, Evaluate) and step.section == "test"
    ]
    assert found["test/accuracy_low"] <= found["test/accuracy"] <= found["test/accuracy_high"]


@pytest.mark.slow
def test_few_validation_rows_are_cross_validated_with_the_training_rows(tiny_recipe, tmp_path):
    steps = trained(data_with(tiny_recipe, STAGES), tmp_path)
    (found,) = (found for step, found in steps if isinstance(step, SelectModel))
    assert 0 <= found.metrics["folds/accuracy_low"] <= found.metrics["folds/accuracy"] <= 1
    assert any("all 39 training and validation rows" in line for line in found.lines)


@pytest.mark.parametrize("with_tta", [False, True])
def test_every_number_of_a_report_is_of_the_model_as_it_predicts(tiny_recipe, tmp_path, monkeypatch, with_tta):
    monkeypatch.setattr(evaluation, "standard_error", lambda *_: -np.inf if with_tta else np.inf)
    data = data_with(tiny_recipe, STAGES[:1])
    data.rows = {**data.rows, "test": data.rows["valid"][::2]}
    *_, valid, test = trained(data, tmp_path / "cache")
    kept = valid.step.state.kept
    assert kept.with_tta is with_tta
    data.save(tmp_path / "model", kept)
    paths = data.index.rows["path"].take(data.rows["valid"]).to_pylist()
    images = pd.DataFrame({"image": [Path(path).read_bytes() for path in paths]})
    served = ImagePredictor(tmp_path / "model").predict(images)
    other = "plain" if with_tta else "tta"
    for section, rows, found in (("valid", slice(None), valid.found), ("test", slice(None, None, 2), test.found)):
        predictions, answers = found.frames[f"{section}/predictions.feather"], served[rows].reset_index(drop=True)
        assert predictions["predicted"].tolist() == answers["class"].tolist()
        np.testing.assert_allclose(predictions["probability"], answers["probability"], atol=1e-5)
        assert not np.allclose(predictions["probability"], predictions[f"probability_{other}"], atol=1e-4)
        right = answers["class"] == predictions["label"]
        metrics = {name.removeprefix(f"{section}/"): value for name, value in found.metrics.items()}
        assert metrics["accuracy"] == pytest.approx(right.mean())
        assert metrics["loss"] == pytest.approx(predictions["loss"].mean(), abs=1e-5)
        assert metrics["loss"] == metrics["loss_tta" if with_tta else "loss_plain"] != metrics[f"loss_{other}"]
        probabilities, actual = np.array(answers["probabilities"].tolist()), data.actual(section)
        assert metrics["ece"] == pytest.approx(expected_calibration_error(probabilities, actual), abs=1e-4)
        (confusion,) = found.counts
        assert np.trace(confusion.counts) == right.sum()
        for title in titles_of(found):
            assert f"{section} " in title, title
            assert kept.title in title or "label errors" in title, title
    assert kept.title in data.summary(kept, valid.found.metrics)


def test_the_temperature_of_the_kept_model_is_fitted_once(tiny_recipe, tmp_path, monkeypatch):
    fitted: list[np.ndarray] = []

    def counting(target: Any, predictions: np.ndarray, *arguments: Any) -> Calibration:
        fitted.append(predictions)
        return calibrate(target, predictions, *arguments)

    for module in (run, evaluation):
        monkeypatch.setattr(module, "calibrate", counting)
    trained(data_with(tiny_recipe, STAGES[:1]), tmp_path)
    assert not any(np.array_equal(one, other) for one, other in combinations(fitted, 2))
    assert len(fitted) == 3  # the head, the regression, and the kept one with TTA


def refitted(tiny_recipe: ImageData, folder: Path, **changes: Any) -> tuple[Candidate, ImageData]:
    """What a training by the default's kind of recipe ends with."""
    still = STAGES[1].model_copy(update={"lr": 1e-9, "freeze_batchnorm": True})
    model = tiny_recipe.params.model.model_copy(update={"head": None})
    data = data_with(tiny_recipe, [REGRESSION, still], model=model, **changes)
    return trained(data, folder)[-1].step.state.kept, data


def test_the_regression_is_refitted_on_validation_images_once_they_have_judged_it(tiny_recipe, tmp_path):
    kept, data = refitted(tiny_recipe, tmp_path)
    assert kept.judged is not None
    data.save(tmp_path / "model", kept)
    paths = [data.index.rows["path"][int(row)].as_py() for row in data.rows["valid"]]
    actual = data.actual("valid")
    now, judged = (
        data.target.loss_of(ImagePredictor(folder, "cpu").probabilities(paths), actual)
        for folder in (tmp_path / "model", tmp_path / "model" / "judged")
    )
    assert now < judged  # it has seen them


def test_the_network_is_refitted_where_that_is_asked_for(tiny_recipe, tmp_path):
    kept, data = refitted(tiny_recipe, tmp_path, refit=True, keep="trained")
    assert kept.name == "full"
    assert data.parts_to_refit(kept) == [(0, 1)]
    assert kept.judged is not None
    assert not torch.equal(kept.states[0]["head.0.weight"], kept.judged.states[0]["head.0.weight"])


@pytest.mark.parametrize("refit", [None, False])
def test_the_network_alone_is_not_refitted_unless_asked_for(tiny_recipe, tmp_path, refit):
    kept, _ = refitted(tiny_recipe, tmp_path, refit=refit, keep="trained")
    assert kept.judged is None
