"""Files of settings, settings by dotted name, and settings that were stored with a run or a model."""

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import ODD, near, values, words
from unfreeze.flows.commands.settings_file import read_settings
from unfreeze.models.recipe.modality import training_from
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.fields import fields_of
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Explain, Export, Predict
from unfreeze.models.settings.retrain import Retrain, Service, Watch
from unfreeze.models.settings.search import SweepSpec, TableSweep, parse_dimension
from unfreeze.models.settings.tables import TrainTables

SPECS: list[type[BaseModel]] = [
    TrainImages,
    TrainTables,
    SweepSpec,
    TableSweep,
    Retrain,
    Predict,
    Explain,
    Export,
    Watch,
    Service,
]
CONFIGS = Path(__file__).parents[2] / "deployments" / "configs"
STORED = [spec().model_dump(mode="json") for spec in (TrainImages, TrainTables)]


def names_of(spec: type[BaseModel]) -> list[str]:
    """Dotted names of a spec's fields and groups; entries of lists by position and by name."""
    names = [field.name for field in fields_of(spec)]
    groups = {name.rpartition(".")[0] for name in names if "." in name and ".N" not in name}
    entries = [name.replace(".N.", f".{entry}.") for name in names for entry in ("0", "9", "full", "head", "x")]
    return sorted({*names, *groups, *entries})


NAMES = {spec.__name__: names_of(spec) for spec in SPECS}
_LAST = sorted({part for names in NAMES.values() for name in names for part in name.split(".")})
_KEYS = st.one_of(st.sampled_from(_LAST), st.sampled_from(_LAST), words)
_TREES: st.SearchStrategy[Any] = st.recursive(
    values,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(_KEYS, below, max_size=4)),
    max_leaves=8,
)


_PLAIN = st.sampled_from([None, True, False, 0, 1, 2, 3, 0.01, 0.5, "auto", "none", "all", "x", [], ["x"], {}, [{}]])


def _settings(spec: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Settings by dotted name, most of which a spec has and some of whose values it takes."""
    names = st.sampled_from(NAMES[spec.__name__])
    return st.dictionaries(st.one_of(names, names, names, words), st.one_of(_PLAIN, _PLAIN, values, _TREES), max_size=3)


# --- files


def _seeds() -> list[bytes]:
    files = [path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))]
    return [
        *files,
        *(json.dumps(each).encode() for each in STORED),
        b"data:\n  source: digits\nrecipe:\n- {name: head, lr: 0.01}\nsweep:\n  trials: 3\n",
    ]


def _written(tree: Any, suffix: str) -> bytes:
    text = json.dumps(tree) if suffix == ".json" else yaml.safe_dump(tree, allow_unicode=True)
    return text.encode(errors="surrogatepass")


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as a file holds them, where their groups are not in each other's way."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, last = name.split(".")
        below: Any = tree
        for group in groups:
            below = below.setdefault(group, {}) if isinstance(below, dict) else {}
        if isinstance(below, dict):
            below[last] = value
    return tree


_SUFFIXES = st.sampled_from([".yaml", ".json"])


def _files(spec: type[BaseModel]) -> st.SearchStrategy[tuple[str, tuple[str, bytes]]]:
    trees = st.one_of(_settings(spec).map(_nested), _settings(spec).map(_nested), _TREES)
    written = st.builds(lambda tree, suffix: (suffix, _written(tree, suffix)), trees, _SUFFIXES)
    return st.tuples(st.just(spec.__name__), st.one_of(st.tuples(_SUFFIXES, near(_seeds())), written))


def run_file(case: tuple[str, tuple[str, bytes]], folder: Path) -> None:
    """Read a file as ``--config`` does, and build the spec."""
    name, (suffix, content) = case
    path = folder / f"settings{suffix}"
    path.write_bytes(content)
    spec = next(spec for spec in SPECS if spec.__name__ == name)
    built = build_spec(spec, read_settings(path))
    built.model_dump_json()


# --- dotted names


def run_names(case: tuple[str, dict[str, Any], dict[str, Any]], folder: Path) -> None:
    """Settings as Python, a sweep and a retraining give them."""
    name, config, overrides = case
    spec = next(spec for spec in SPECS if spec.__name__ == name)
    built = build_spec(spec, config, overrides)
    built.model_dump_json()


_NAMES = st.sampled_from(SPECS).flatmap(
    lambda spec: st.tuples(
        st.just(spec.__name__),
        st.one_of(st.just({}), st.just({}), st.dictionaries(_KEYS, _TREES, max_size=3)),
        _settings(spec),
    )
)


# --- stored


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


def run_stored(case: tuple[int, dict[str, Any]], folder: Path) -> None:
    """Settings as a run or a model kept them, perhaps by another release."""
    position, changes = case
    training_from(_nested({**_flat(STORED[position]), **changes}), "run 0123")


_STORED = st.sampled_from([0, 1]).flatmap(
    lambda position: st.tuples(
        st.just(position),
        _settings(SPECS[position]),
    )
)


# --- dimensions of a sweep


def run_dimension(case: str, folder: Path) -> None:
    """A ``--space``."""
    parse_dimension(case)


_RANGES = st.builds(
    lambda name, low, dots, high, log: f"{name}={low}{dots}{high}{log}",
    st.one_of(st.sampled_from(NAMES["TrainImages"]), words),
    st.sampled_from([*ODD, "1", "0.1", "3"]),
    st.sampled_from(["..", ",", "", " .. ", "..."]),
    st.sampled_from([*ODD, "30", "1e5", "9"]),
    st.sampled_from(["", " log", "log", " linear"]),
)

KINDS = [
    Kind("settings files", st.sampled_from(SPECS).flatmap(_files), run_file, share=10, places=lambda case: [": "]),
    Kind(
        "settings by name",
        _NAMES,
        run_names,
        share=10,
        places=lambda case: [": ", *map(repr, case[2])],
        found=[("TrainImages", {}, {"\n": None})],
    ),
    Kind(
        "stored settings",
        _STORED,
        run_stored,
        share=5,
        places=lambda case: ["run 0123"],
        found=[(0, {"modality": None}), (0, {"data.size": "large"}), (0, {"data.pixel_range": ["x"]})],
    ),
    Kind("sweep dimensions", _RANGES, run_dimension, share=5, places=lambda case: ["--space"]),
]
