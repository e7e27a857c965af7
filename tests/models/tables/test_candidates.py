"""The model that a table's training ends with: the network, the trees, or both together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unfreeze import Tables, load_model
from unfreeze.models.recipe.run import Evaluate, SelectModel, Train, run_recipe
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.store.model_folder import judged_folder
from unfreeze.models.tables.data import TableData
from unfreeze.models.targets.losses import cross_entropy

ROWS = 400
SMALL = {
    "model.members": 3,
    "model.width": 16,
    "recipe.all.cycles": 2,
    "recipe.all.cycle_steps": 20,
    "data.split": "random",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    kind, size = random.choice(list("abcd"), ROWS), random.normal(size=ROWS)
    level = pd.Series(kind).map({"a": 100, "b": 200, "c": 400, "d": 800})
    price = level * np.exp(0.3 * size + 0.1 * random.normal(size=ROWS))
    frame = pd.DataFrame({"kind": kind, "size": size, "price": price, "dear": np.where(price > 250, "yes", "no")})
    path = tmp_path_factory.mktemp("table") / "prices.csv"
    frame.to_csv(path, index=False)
    return path


def estimator(source: Path, **settings: object) -> Tables:
    price = {"data.target": ["price"], "data.drop": ["dear"], "data.log_target": True}
    return Tables(source, config={**price, **SMALL, **settings})


DEAR = {"data.target": ["dear"], "data.drop": ["price"], "data.log_target": False}


@pytest.mark.parametrize("settings", [{}, DEAR])
def test_the_model_with_the_lowest_validation_loss_is_kept_saved_and_evaluated(source, settings, tmp_path):
    model = estimator(source, **settings).fit()
    losses = {name.split("/")[1]: value for name, value in model.metrics_.items() if name.startswith("choice/")}
    assert set(losses) == {"network", "network_and_trees", "trees"}
    assert model.metrics_["valid/loss"] == pytest.approx(min(losses.values()))
    frame = pd.read_csv(source)
    before = model.predict_frame(frame.drop(columns=["price", "dear"]))
    after = load_model(model.save(tmp_path / "model"), "cpu").predict_frame(frame.drop(columns=["price", "dear"]))
    pd.testing.assert_frame_equal(before, after)


def test_each_model_is_what_it_is_called(source):
    data = estimator(source)._data()
    assert isinstance(data, TableData)
    for step in run_recipe(data, estimator(source)._workspace):
        if isinstance(step, Evaluate):
            break
        for _ in step.run() if isinstance(step, Train) else [step.run()]:
            pass
        if isinstance(step, SelectModel):
            learner = step.state.learner
            candidates = {each.name: each for each in data.candidates(learner, 0, step.state.activations, [])}
    said = {name: data.predictions(learner, each, {}, "valid") for name, each in candidates.items()}
    together = np.expm1((np.log1p(said["network"]) + np.log1p(said["trees"])) / 2)
    np.testing.assert_allclose(said["network and trees"], together)
    assert not np.allclose(said["network"], said["trees"])
    outputs = data.trees.predict(data.encoded("valid")[0])
    np.testing.assert_allclose(said["trees"], np.expm1(outputs))


def test_a_kept_model_is_refitted_on_all_rows_but_the_test_beside_the_one_that_was_judged(source, tmp_path):
    settings = {"data.test_fraction": 0.2, "seed": 1}
    refitted, judged = estimator(source, **settings).fit(), estimator(source, **settings, refit=False).fit()
    losses = {name: value for name, value in judged.metrics_.items() if name.startswith(("valid/", "choice/"))}
    assert {name: refitted.metrics_[name] for name in losses} == losses
    assert refitted.metrics_["test/loss"] != judged.metrics_["test/loss"]
    rows = pd.read_csv(source)[["kind", "size"]]
    folder = refitted.save(tmp_path / "refitted")
    said = load_model(folder, "cpu").predict_frame(rows)
    assert not said.equals(judged.predict_frame(rows))
    pd.testing.assert_frame_equal(
        load_model(judged_folder(folder), "cpu").predict_frame(rows), judged.predict_frame(rows)
    )
    pd.testing.assert_frame_equal(estimator(source, **settings).fit().predict_frame(rows), said)  # the same steps again


WEIGHTED = {**DEAR, "optimizer.class_weights": "balanced", "data.split": "last_rows"}
PARTS: tuple[dict[str, Any], ...] = ({"states": []}, {"parts": {}})
"""What a candidate of both lacks, to be the trees or the network."""


@pytest.mark.slow
def test_as_many_trees_are_refitted_and_the_network_goes_on_from_its_weights(source):
    data = estimator(source, **WEIGHTED)._data()
    assert isinstance(data, TableData)
    for step in run_recipe(data, estimator(source)._workspace):
        for _ in step.run() if isinstance(step, Train) else [step.run()]:
            pass
        if isinstance(step, SelectModel):
            learner, result = step.state.learner, step.state.record.results[0]
            judged = Candidate("both", [learner.state()], 0, {"trees": data.trees})
    rows, data.rows["valid"] = data.encoded("valid")[0], data.rows["valid"][:0]
    again = data.refitted(judged, [result], step.state.workspace)[0]
    trees, network = (
        [data.answers(learner, replace(each, **part), rows) for each in (judged, again)] for part in PARTS
    )
    np.testing.assert_array_equal(*trees)  # on the same rows the same trees
    assert 0 < np.abs(network[0] - network[1]).mean() < 0.1


def test_a_row_of_a_kept_model_is_predicted_the_same_whatever_is_beside_it(source):
    model = estimator(source).fit()
    rows = pd.read_csv(source)[["kind", "size"]]
    together = model.predict(rows)
    for row in (0, 255, 256, ROWS - 1):
        alone = model.predict(rows.iloc[[row]])
        assert alone.tolist() == [together[row]]


def test_a_model_of_trees_alone_is_stored_without_a_network(source, tmp_path):
    model = estimator(source)
    data = model._data()
    trees = next(each for each in data.candidates(data.learner(), 0, lambda _: {}, []) if each.name == "trees")
    data.save(tmp_path, trees)
    assert not list(tmp_path.glob("*.safetensors"))
    rows = pd.read_csv(source)[["kind", "size"]]
    predicted = load_model(tmp_path, "cpu").predict(rows)
    valid = data.rows["valid"]
    said = data.predictions(data.learner(), trees, {}, "valid")[:, 0]
    np.testing.assert_array_equal(predicted[valid], said)


def test_a_saved_model_divides_its_logits_by_its_temperature(source, tmp_path):
    data = estimator(source, **DEAR)._data()
    trees = next(each for each in data.candidates(data.learner(), 0, lambda _: {}, []) if each.name == "trees")
    data.save(tmp_path, replace(trees, temperature=2.0))
    answers = load_model(tmp_path, "cpu").predict_proba(pd.read_csv(source)[["kind", "size"]])
    said = data.predictions(data.learner(), trees, {}, "valid")
    found = answers[data.rows["valid"]]
    np.testing.assert_allclose(found, np.sqrt(said) / np.sqrt(said).sum(1, keepdims=True), atol=1e-12)


def test_without_trees_there_is_only_the_network(source):
    model = estimator(source, trees=False).fit()
    assert [name for name in model.metrics_ if name.startswith("choice/")] == ["choice/network"]
    assert not [name for name in model.metrics_ if name.startswith(("baseline/tree", "ensemble/"))]
    assert "baseline/mean_rmse" in model.metrics_


def test_a_batch_of_an_ensemble_costs_the_mean_of_its_members_losses(source):
    data = estimator(source, **DEAR)._data()
    learner = data.learner()
    learner.prepare(data.params.recipe[0], 0, 0.002)
    batches = data.batches(0, "train", {})
    inputs, targets = batches.gather(torch.arange(20), None)
    learner.network.eval()  # without dropout; the head alone answers for its members
    learner.network.head.train()
    loss = cross_entropy(data.params.optimizer, data.targets("train"), 2, data.device)
    with torch.no_grad():
        members = learner.network(inputs)
        expected = np.mean([float(loss(members[:, number], targets)) for number in range(3)])
    assert float(learner.train_batch(inputs, targets, batches)) == pytest.approx(expected, rel=1e-6)


def test_what_the_network_is_expected_to_bring_is_said_where_there_are_trees_beside_it(source):
    assert estimator(source)._data().decided()[0].startswith("network: about 60 % of the time; beside the trees")
    assert estimator(source, trees=False)._data().decided() == []
