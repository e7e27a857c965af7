"""What a sweep found, from real studies, in a real MLflow store."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pandas as pd
import pytest
from matplotlib import pyplot
from mlflow import MlflowClient
from mpl_toolkits.mplot3d import Axes3D
from optuna.trial import Trial
from scipy.stats import ttest_1samp

from tests.flows.tiny import published_run
from unfreeze.tasks import tracking
from unfreeze.tasks.sweeps.report import compare_with_rules, draw_study, keep_report, verdict
from unfreeze.tasks.sweeps.study import best_trial

ALL = ["history", "slice", "importance"]
RULES = {"ratio 10 (data like ImageNet)": 10.0, "ratio 3 (data unlike it)": 3.0}


def loss(trial: Trial) -> float:
    ratio = trial.suggest_float("body_ratio", 1, 30, log=True)
    factor = trial.suggest_float("head_factor", 0.1, 3, log=True)
    return 0.3 + 0.02 * math.log(ratio / 8) ** 2 + 0.03 * math.log(factor) ** 2


def repeated(trial: Trial, seeds: int) -> float:
    noise = np.random.default_rng(trial.number).normal(0, 0.001, seeds)
    values = [loss(trial) + float(each) for each in noise]
    trial.set_user_attr("repeats", values)
    return float(np.mean(values))


def pruned(trial: Trial) -> float:
    loss(trial)
    raise optuna.TrialPruned


def two(trial: Trial) -> tuple[float, ...]:
    """Accuracy, which should be high, and seconds, which should be low."""
    return 1 - loss(trial), 10 + trial.params["body_ratio"]


def search(
    objective: Callable[[Trial], float | tuple[float, ...]] = loss,
    trials: int = 12,
    directions: tuple[str, ...] = ("minimize",),
) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), directions=directions)
    for rule, ratio in RULES.items():
        study.enqueue_trial({"body_ratio": ratio, "head_factor": 1.0}, user_attrs={"rule": rule})
    study.optimize(objective, n_trials=trials)
    return study


def kept(study: optuna.Study, objectives: list[str]) -> tuple[str, set[str]]:
    """The run that the report went to, and the names of its files."""
    run_id = published_run("sweep", {}, {"unfreeze.kind": "sweep"})
    keep_report(study, objectives, run_id)
    stored = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).list_artifacts(run_id, "sweep")
    return run_id, {item.path.removeprefix("sweep/") for item in stored}


def read(run_id: str, name: str) -> Path:
    path = tracking.fetch(run_id, f"sweep/{name}")
    assert path is not None
    return path


def test_a_study_is_drawn_in_every_way() -> None:
    drawn = draw_study(search(), ["loss"])
    assert list(drawn) == ALL
    page, figure = drawn["history"]
    assert page.layout.yaxis.title.text == figure.axes[0].get_ylabel() == "loss"


def test_no_image_stays_in_pyplot_and_its_style_is_as_before() -> None:
    before = dict(matplotlib.rcParams)
    draw_study(search(), ["loss"])
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.filterwarnings("error")
def test_drawing_warns_of_nothing() -> None:
    for _, figure in draw_study(search(two, directions=("maximize", "minimize")), ["accuracy", "seconds"]).values():
        figure.canvas.draw()


def test_of_a_single_trial_there_is_only_the_history() -> None:
    assert list(draw_study(search(trials=1), ["loss"])) == ["history"]


def test_trials_that_are_equally_good_say_nothing_about_what_matters() -> None:
    drawn = draw_study(search(lambda trial: 0 * loss(trial)), ["loss"])
    assert list(drawn) == ["history", "slice"]


def test_a_setting_that_never_changed_is_not_drawn() -> None:
    def objective(trial: Trial) -> float:
        return loss(trial) + trial.suggest_categorical("seed", [0])

    _, figure = draw_study(search(objective), ["loss"])["slice"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"body_ratio", "head_factor", ""}


def test_settings_of_every_kind_can_be_drawn() -> None:
    def objective(trial: Trial) -> float:
        preset = trial.suggest_categorical("augment.preset", ["none", "side-on", "top-down"])
        frozen = trial.suggest_categorical("freeze_batchnorm", [True, False])
        return loss(trial) + 0.01 * len(preset) + 0.1 * frozen + 0.1 * trial.suggest_int("recipe.2.cycle_mult", 1, 3)

    assert list(draw_study(search(objective), ["loss"])) == ALL


def test_a_training_that_diverged_is_rejected() -> None:
    def objective(trial: Trial) -> float:
        return math.inf if trial.number == 1 else loss(trial)

    study = search(objective)
    assert list(draw_study(study, ["loss"])) == ALL
    assert [row["loss"] for row in compare_with_rules(study, ["loss"]) if row["trial"] == 1] == [None]


def test_several_objectives_add_the_pareto_front_and_leave_out_what_would_have_misleading_colours() -> None:
    drawn = draw_study(search(two, directions=("maximize", "minimize")), ["accuracy", "seconds"])
    assert list(drawn) == ["history", "slice", "pareto_front"]
    assert drawn["history"][1].axes[0].get_ylabel() == "accuracy"
    _, figure = drawn["pareto_front"]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("accuracy", "seconds")


def test_of_four_objectives_three_are_in_the_pareto_front() -> None:
    study = search(lambda trial: (*two(trial), loss(trial), -loss(trial)), directions=("maximize", *3 * ["minimize"]))
    _, figure = draw_study(study, ["accuracy", "seconds", "loss", "other"])["pareto_front"]
    (axes,) = figure.axes
    assert isinstance(axes, Axes3D)
    assert axes.get_zlabel() == "loss"


def test_the_best_trial_stands_beside_every_rule_of_thumb() -> None:
    study = search(trials=30)
    best, *rules = compare_with_rules(study, ["loss"])
    winner = best_trial(study)
    assert winner is not None
    assert best == {
        "what": "best of the search",
        "trial": winner.number,
        "loss": round(winner.values[0], 5),
        "difference": 0,
        **{name: float(f"{value:.5g}") for name, value in winner.params.items()},
    }
    assert {row["what"]: row["body_ratio"] for row in rules} == RULES
    for number, row in enumerate(rules):
        assert row["difference"] == round(winner.values[0] - study.trials[number].values[0], 5)


def test_each_objective_has_its_column() -> None:
    best, *_ = compare_with_rules(search(two, directions=("maximize", "minimize")), ["accuracy", "seconds"])
    assert list(best) == ["what", "trial", "accuracy", "seconds", "difference", "body_ratio", "head_factor"]


def test_repeats_say_how_much_a_difference_is_worth() -> None:
    study = search(lambda trial: repeated(trial, 6))
    best, first, second = compare_with_rules(study, ["loss"])
    winner = best_trial(study)
    assert winner is not None
    assert "improvement low" not in best
    gains = np.subtract(study.trials[1].user_attrs["repeats"], winner.user_attrs["repeats"])
    alone = ttest_1samp(gains, 0).confidence_interval(1 - 0.05 / 11)  # the best of twelve trials was chosen
    assert (second["improvement low"], second["improvement high"]) == pytest.approx(tuple(alone), abs=1e-5)
    assert second["improvement low"] > 0
    assert first["trial"] == 0


def test_a_higher_score_is_an_improvement_as_well() -> None:
    def objective(trial: Trial) -> float:
        values = [value + 0.1 * trial.number for value in (0.3, 0.31, 0.32)]
        trial.set_user_attr("repeats", values)
        return loss(trial) * 0 + float(np.mean(values))

    _, first, _ = compare_with_rules(search(objective, trials=3, directions=("maximize",)), ["accuracy"])
    assert first["improvement low"] == first["improvement high"] == pytest.approx(0.2)


def judged(gain: float) -> list[str]:
    """Verdict on a trial that has `gain` less loss than the training as it is, on 200 rows of a loss of about 1."""
    rows, noise = np.random.default_rng(0).normal(1, 0.3, 200), np.random.default_rng(1).normal(0, 0.1, 200)
    study = optuna.create_study()
    for number, losses in enumerate([rows, rows - gain + noise - noise.mean()]):
        trial = optuna.trial.create_trial(
            value=0.5 if gain == 0 else float(losses.mean()),
            user_attrs={
                "losses": list(losses),
                "kept": "trees",
                **({} if number else {"rule": "as the recipe has it"}),
            },
        )
        study.add_trial(trial)
    return verdict(compare_with_rules(study, ["loss"]), "loss")


def test_the_best_is_better_only_where_its_interval_shows_it() -> None:
    assert "the best is better, improvement +0." in judged(0.1)[1]
    assert "the best is not shown to be better, improvement -0." in judged(0.003)[1]


def test_a_search_in_which_the_training_as_it_is_comes_first_says_that_nothing_was_better() -> None:
    best, as_it_is = judged(-0.1)
    assert best.endswith("whose training keeps trees.")
    assert as_it_is == "No trial was better than trial 0: as the recipe has it."


def test_rows_can_be_shown_as_json() -> None:
    for seeds in (1, 4, 6):
        rows = compare_with_rules(search(lambda trial, seeds=seeds: repeated(trial, seeds)), ["loss"])
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows


@pytest.mark.usefixtures("home_with_store")
def test_a_report_has_a_page_and_an_image_of_every_plot_and_its_tables() -> None:
    study = search(lambda trial: repeated(trial, 6))
    run_id, names = kept(study, ["loss"])
    tables = {"trials.feather", "search_vs_rule_of_thumb.feather", "search_vs_rule_of_thumb.txt"}
    assert names == {f"{name}.{kind}" for name in ALL for kind in ("html", "png")} | tables
    assert read(run_id, "slice.png").read_bytes().startswith(b"\x89PNG")
    page = read(run_id, "slice.html").read_text()
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page)  # it opens without a network

    compared = pd.read_feather(read(run_id, "search_vs_rule_of_thumb.feather"))
    assert compared["what"].tolist() == ["best of the search", *RULES]
    assert "ratio 3 (data unlike it)" in read(run_id, "search_vs_rule_of_thumb.txt").read_text()
    trials = pd.read_feather(read(run_id, "trials.feather"))
    assert trials["loss"].tolist() == [trial.value for trial in study.trials]
    assert json.loads(trials["user_attrs_repeats"][0]) == study.trials[0].user_attrs["repeats"]


@pytest.mark.usefixtures("home_with_store")
def test_without_a_complete_trial_the_report_is_the_list_of_trials() -> None:
    study = search(pruned, trials=3)
    assert draw_study(study, ["loss"]) == {}
    assert compare_with_rules(study, ["loss"]) == []
    run_id, names = kept(study, ["loss"])
    assert names == {"trials.feather"}
    assert pd.read_feather(read(run_id, "trials.feather"))["state"].tolist() == ["PRUNED"] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("home_with_store")
def test_the_list_of_trials_names_every_objective_and_holds_values_of_any_kind() -> None:
    def objective(trial: Trial) -> tuple[float, ...]:
        trial.suggest_categorical("mixed", [True, "auto", 0.5])
        return two(trial)

    run_id, names = kept(search(objective, directions=("maximize", "minimize")), ["accuracy", "seconds"])
    assert {"pareto_front.html", "pareto_front.png"} <= names
    trials = pd.read_feather(read(run_id, "trials.feather"))
    assert {"accuracy", "seconds"} <= set(trials)
    assert {json.loads(value) for value in trials["params_mixed"]} == {True, "auto", 0.5}
