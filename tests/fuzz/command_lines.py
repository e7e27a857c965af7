"""Command lines, up to the settings that the command would run with."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError
from hypothesis import strategies as st

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import ODD, words
from tests.fuzz.settings import NAMES
from unfreeze.flows.cli import app
from unfreeze.flows.commands import training
from unfreeze.flows.commands.flags import NOTHING, Given, parse, spec_from
from unfreeze.models.errors import printable
from unfreeze.models.settings import Spec
from unfreeze.models.settings.predict import Explain, Export, Predict
from unfreeze.models.settings.retrain import Retrain, Service
from unfreeze.models.settings.search import check_space


def _training(source: str | None = None, given: Given = NOTHING, **_: Any) -> None:
    training.training_from(source, given)


def _table(source: str | None = None, given: Given = NOTHING, **_: Any) -> None:
    training.training_from(source, {**given, "modality": "tables"})


def _sweep(
    source: str | None = None, search: Given = NOTHING, space: tuple[str, ...] = (), given: Given = NOTHING, **_: Any
) -> None:
    params = training.training_from(source, given)
    check_space(training.search_from(search, space, given, params.modality), params)


def _of(spec: type[Spec]) -> Callable[..., object]:
    return lambda given=NOTHING, **_: spec_from(spec, given)


SETTINGS: dict[str, tuple[str, Callable[..., object]]] = {
    **dict.fromkeys(("train", "find_lr", "look", "plan", "summary"), ("TrainImages", _training)),
    "train_table": ("TrainTables", _table),
    "sweep": ("SweepSpec", _sweep),
    "explain": ("Explain", _of(Explain)),
    "export": ("Export", _of(Export)),
    "retrain": ("Retrain", _of(Retrain)),
    "predict": ("Predict", _of(Predict)),
    "up": ("Service", _of(Service)),
}
"""Command -> its spec, and what reads its settings."""
_OTHERS = ["resume", "compare", "report", "add-datepart", "runs", "status", "promote", "clean", "open", "sync", "watch"]
_SWITCHES = ["--json", "--best", "--register", "--print", "--yes", "--help", "--version", "-h", "--", "-"]
_OWN = ["--stage", "--hours", "--space", "--config", "--out", "--column", "--study", "--storage"]


def run(case: list[str], folder: Path) -> str | None:
    """Parse a command line and read its settings."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            command, bound = parse(app, case)
            if command.__name__ in SETTINGS:
                SETTINGS[command.__name__][1](**bound.arguments)
        except CycloptsError as error:
            return f"unfreeze: {printable(str(error))}"
    return None


def _flags(spec: str) -> st.SearchStrategy[list[str]]:
    names = st.one_of(st.sampled_from([f"--{name}" for name in NAMES[spec]]), st.sampled_from(_OWN + _SWITCHES))
    values = st.one_of(st.sampled_from(ODD), words)
    return st.one_of(
        st.builds(lambda name, value: [name, value], names, values),
        st.builds(lambda name, value: [f"{name}={value}"], names, values),
        st.builds(lambda name: [name], st.one_of(names, words)),
    )


def _lines(command: str) -> st.SearchStrategy[list[str]]:
    spec = SETTINGS.get(command, ("Predict", None))[0]
    flags = st.lists(_flags(spec), max_size=3).map(lambda parts: [each for part in parts for each in part])
    sources = st.lists(st.one_of(words, st.just("digits")), max_size=2)
    return st.builds(lambda before, after: [command.replace("_", "-"), *before, *after], sources, flags)


_KNOWN = st.sampled_from([*SETTINGS, *SETTINGS, *_OTHERS]).flatmap(_lines)
KIND = Kind(
    "command lines",
    st.one_of(_KNOWN, _KNOWN, _KNOWN, st.lists(words, max_size=3)).map(
        lambda line: [word.replace("\0", "") for word in line]  # the system's own interface cannot pass it
    ),
    run,
    share=1,
    places=lambda case: ["unfreeze", ": "],
)
