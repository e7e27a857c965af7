"""Command lines, up to the settings that the command would run with."""

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import ODD, words
from tests.fuzz.settings import NAMES
from unfreeze.flows import cli
from unfreeze.flows.flags import spec_from
from unfreeze.flows.source_argument import params_from
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.predict import Explain, Export, Predict
from unfreeze.models.settings.retrain import Retrain, Service
from unfreeze.models.settings.search import check_space
from unfreeze.models.settings.tables import TrainTables


def _training(options: argparse.Namespace) -> None:
    is_table = options.command == "train-table" or getattr(options, "table", False)
    params_from(options, TrainTables if is_table else TrainImages)


def _sweep(options: argparse.Namespace) -> None:
    check_space(cli.search_from(options), params_from(options, TrainTables if options.table else TrainImages))


SETTINGS: dict[str, tuple[str, Callable[[argparse.Namespace], object]]] = {
    **dict.fromkeys(("train", "find-lr", "look"), ("TrainImages", _training)),
    "train-table": ("TrainTables", _training),
    **dict.fromkeys(("plan", "summary"), ("TrainImages", _training)),
    "sweep": ("SweepSpec", _sweep),
    "explain": ("Explain", lambda options: spec_from(options, Explain, model=options.model, source=options.source)),
    "export": ("Export", lambda options: spec_from(options, Export, model=options.model)),
    "retrain": ("Retrain", lambda options: spec_from(options, Retrain)),
    "predict": ("Predict", lambda options: spec_from(options, Predict)),
    "up": ("Service", lambda options: spec_from(options, Service)),
}
"""Command -> its spec, and what reads its settings."""
_OTHERS = ["resume", "compare", "report", "add-datepart", "runs", "status", "promote", "clean", "open", "sync", "watch"]
_SWITCHES = ["--json", "--table", "--best", "--register", "--print", "--yes", "--help", "--version", "-h", "--", "-"]
_OWN = ["--stage", "--hours", "--space", "--config", "--out", "--column", "--study", "--storage"]


def run(case: list[str], folder: Path) -> str | None:
    """Parse a command line and read its settings."""
    said, status = io.StringIO(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            options = cli.parse(case)
            if options.command in SETTINGS:
                SETTINGS[options.command][1](options)
            status = 0
        except SystemExit as end:
            status = end.code
    assert status in (0, 2), status
    return said.getvalue().removesuffix("\n") if status else None


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
    return st.builds(lambda before, after: [command, *before, *after], sources, flags)


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
