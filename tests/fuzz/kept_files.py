"""Files that unfreeze keeps, damaged or changed and sealed: checkpoints, models, weights, caches, indexes, parts."""

import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import changed_json, edited, near, values
from tests.models.conftest import tiny_network
from unfreeze.models.evaluation.metrics import accuracy
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.networks.backbones import preprocessing_of
from unfreeze.models.images.networks.classifier import build_classifier
from unfreeze.models.images.networks.weights import read_weights
from unfreeze.models.images.pixels.cache import ImageCache, image_store
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.images.serving.predictor import save_classifier
from unfreeze.models.recipe.modality import modality_in
from unfreeze.models.settings import DataSpec, OptimizerSpec, Stage, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store import sealed_files
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.part_files import PartFiles
from unfreeze.models.store.sealed_files import CHECKSUMS, DESCRIPTION, damaged_file
from unfreeze.models.store.workspace import Derived, Workspace
from unfreeze.models.tables.network import network_of
from unfreeze.models.tables.preparing.prepare import prepare
from unfreeze.models.tables.serving import save_table_model
from unfreeze.models.targets import SingleLabel
from unfreeze.models.targets.losses import cross_entropy
from unfreeze.models.training.checkpoints import load_checkpoint, restore, save_checkpoint
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.precision import Precision

CPU = torch.device("cpu")
_PATHS = st.lists(st.integers(0, 20), min_size=1, max_size=4)
_CHANGES = st.tuples(_PATHS, st.one_of(st.just(...), values, st.sampled_from([10**12, 2**31, "cpu", [0], {}])))
"""Where in a JSON text, and what is put there."""


def _content(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


# --- checkpoints


def _learner() -> Learner:
    loss = cross_entropy(OptimizerSpec(), np.arange(3), 3, CPU)
    precision = Precision("cpu", torch.float32, torch.float32)
    learner = Learner(tiny_network(), OptimizerSpec(), loss, CPU, precision, 0, {"accuracy": accuracy})
    learner.prepare(Stage(name="full", train="all", lr=0.01, ratio=3), 0, 0.01)
    return learner


@functools.cache
def _checkpoint() -> bytes:
    return _content(lambda path: save_checkpoint(_learner(), path))


def run_checkpoint(case: Any, folder: Path) -> None:
    """Read a checkpoint, and go on from it."""
    path = folder / "state.safetensors"
    path.write_bytes(case)
    checkpoint = load_checkpoint(path)
    restore(_learner(), checkpoint)


_CHECKPOINTS = st.one_of(
    st.deferred(lambda: near([_checkpoint()])),
    st.deferred(lambda: near([_checkpoint()[:4000]])),
)

# --- models


@functools.cache
def _models() -> dict[str, dict[str, bytes]]:
    """Files of a model of each modality."""
    found = {}
    for name, save in (("images", _save_images), ("tables", _save_tables)):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            save(folder)
            found[name] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return found


def _save_images(folder: Path) -> None:
    spec = {"backbone": "timm/test_resnet", "weights": "none", "head_width": 8}
    params = build_spec(TrainImages, {"model": spec, "device": "cpu", "precision": "fp32"})
    network = build_classifier(params.model, 2, 0, [32])
    save_classifier(
        folder, [network.state_dict()], params, preprocessing_of(params.model), SingleLabel(["cat", "dog"]), 32
    )


def _save_tables(folder: Path) -> None:
    import pandas as pd

    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"shop": chance.choice(["a", "b"], 60), "price": chance.normal(5, 1, 60)})
    frame["sales"] = chance.normal(9, 2, 60)
    data = {"target": ["sales"], "task": "regression"}
    params = build_spec(TrainTables, {"data": data, "model": {"members": 2, "width": 4, "depth": 1}})
    table = prepare(frame, [], params.data)
    params = params.model_copy(update={"data": table.data})
    network = network_of(params, table.encoder)
    save_table_model(folder, [network.state_dict()], params, table.encoder, [], table.raw, table.calendar)


def run_model(case: tuple[str, str, Any, bool], folder: Path) -> None:
    """Load a model folder of which a file is damaged, or changed by somebody who sealed it again."""
    name, file, change, seal = case
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for each, content in _models()[name].items():
        (place / each).write_bytes(content)
    path = place / file
    if file.endswith(".json") and isinstance(change, tuple):
        path.write_text(changed_json(path.read_text(), *change))
    elif path.exists() and isinstance(change, list):
        path.write_bytes(edited(path.read_bytes(), change))
    if seal:
        names = [each for each in _models()[name] if each != CHECKSUMS]
        (place / CHECKSUMS).write_text(json.dumps({each: sealed_files.checksum(place / each) for each in names}))
    sealed_files._known.clear()
    predictor = modality_in(place).load(place, "cpu")
    assert predictor.target is not None
    damaged_file(place)


_EDITED = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "flip", "cut"]), st.integers(0, 2**16 - 1), st.binary(min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=3,
)
_MODELS = st.one_of(
    st.tuples(
        st.sampled_from(["images", "tables"]),
        st.sampled_from([DESCRIPTION, CHECKSUMS, "model.safetensors", "encoder.json"]),
        _EDITED,
        st.booleans(),
    ),
    st.tuples(st.just("images"), st.just(DESCRIPTION), _CHANGES, st.just(True)),
    st.tuples(st.just("tables"), st.sampled_from([DESCRIPTION, "encoder.json"]), _CHANGES, st.just(True)),
)

# --- weights


@functools.cache
def _weights() -> dict[str, bytes]:
    state = {"conv.weight": torch.ones(2, 3), "bn.num_batches_tracked": torch.tensor(3)}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state}, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return {
        "a.pth": new.getvalue(),
        "b.pth": old.getvalue(),
        "c.safetensors": _content(lambda path: save_file(state, path)),
    }


def run_weights(case: tuple[str, bytes], folder: Path) -> None:
    """Read a file of weights from anywhere."""
    path = folder / case[0]
    path.write_bytes(case[1])
    state = read_weights(path)
    assert all(isinstance(name, str) for name in state)


_WEIGHTS = st.sampled_from(["a.pth", "b.pth", "c.safetensors"]).flatmap(
    lambda name: st.tuples(st.just(name), near([_weights()[name]]))
)

# --- caches, indexes, parts


def _write_list(path: Path) -> None:
    """Write a list of squares, and beside it the file of their rows."""
    store = image_store(Workspace(path.parent / "made"), 4, "crop", "bilinear")
    contents = [f"{number:032x}" for number in range(5)]
    store.append(contents, np.full((5, 48), 7, np.uint8))
    store.write_list(path, contents)
    for each in (store.path, sealed_files.checksum_file(store.path)):
        shutil.copy(each, path.parent)


def _write_index(path: Path) -> None:
    from tests.conftest import draw_stripes

    with tempfile.TemporaryDirectory() as folder:
        draw_stripes(Path(folder), 3, 0)
        (Path(folder) / "across" / "bad.png").write_bytes(b"")
        data = DataSpec(source=folder)
        listing = resolve_source(data, Path(folder))
        build_index(listing, hash_files([file.path for file in listing.files], 1), data, threads=1).save(path)


def _write_part(path: Path) -> None:
    batch = pa.record_batch({"path": ["a", "b"], "probability": [0.5, 0.25]})
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


_WRITERS: Mapping[str, Callable[[Path], None]] = {
    "list": _write_list,
    "index": _write_index,
    "part": _write_part,
}


@functools.cache
def _whole(what: str) -> bytes:
    return _content(_WRITERS[what])


def run_cache(case: tuple[str, bytes, bytes | None], folder: Path) -> None:
    """Ask the cache for a damaged file, as a training does: it is as it was before the damage."""
    what, content, seal = case
    workspace, derived = Workspace(folder), Derived(what, "key")
    workspace.notice = lambda line: None
    path = workspace.path(derived)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sealed_files._known.clear()
    if seal is None:
        sealed_files.checksum_file(path).unlink(missing_ok=True)
    else:
        sealed_files.checksum_file(path).write_bytes(seal)
    workspace.derive("build", {"it": derived}, lambda wanted: (wanted["it"].write_bytes(_whole(what)), None)[1])
    assert path.read_bytes() == _whole(what)


def run_opened(case: tuple[str, bytes], folder: Path) -> None:
    """Open a file that is no cache, no index and no part of predictions."""
    what, content = case
    path = folder / ("part-000000000000.arrow" if what == "part" else f"{what}.arrow")
    path.unlink(missing_ok=True)
    if what == "list":
        _write_list(path)  # for its rows
    path.write_bytes(content)
    sealed_files._known.clear()
    sealed_files.checksum_file(path).write_text(sealed_files.checksum(path))
    if what == "list":
        cache = ImageCache(path)
        cache.gather(np.arange(len(cache)))
    elif what == "index":
        index = Index.load(path)
        index.targets(), index.sides(), index.fingerprint(), index.rows_of("train")
    else:
        parts = PartFiles(folder, 2, 2)
        if parts.done() == 2:
            assert sum(batch.num_rows for batch in parts.batches()) == 2


def _near(what: str) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: near([_whole(what)]))


_KINDS_OF_FILES = st.sampled_from(list(_WRITERS))
_CACHES = _KINDS_OF_FILES.flatmap(
    lambda what: st.tuples(st.just(what), _near(what), st.one_of(st.none(), st.binary(max_size=40)))
)
_OPENED = _KINDS_OF_FILES.flatmap(lambda what: st.tuples(st.just(what), _near(what)))

KINDS = [
    Kind(
        "checkpoints",
        _CHECKPOINTS,
        run_checkpoint,
        share=4,
    ),
    Kind(
        "model folders",
        _MODELS,
        run_model,
        share=1,
        found=[
            ("images", DESCRIPTION, ([0, 3], {}), True),
            ("images", DESCRIPTION, ([1], 10**12), True),  # networks
            ("images", DESCRIPTION, ([1], 0), True),
            ("images", DESCRIPTION, ([17, 17], ...), True),  # classes
            ("tables", DESCRIPTION, ([0, 3], ...), True),
            ("tables", DESCRIPTION, ([1], 10**12), True),
        ],
    ),
    Kind(
        "weights",
        _WEIGHTS,
        run_weights,
        share=5,
        found=[("b.pth", b"\x80\x02."), ("b.pth", b"\x80\x09."), ("b.pth", b"\x80\x02K\x00Q.")],
    ),
    Kind("caches", _CACHES, run_cache, share=3),
    Kind("opened caches", _OPENED, run_opened, share=5),
]
