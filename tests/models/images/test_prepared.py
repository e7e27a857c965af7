"""Prepared images and activations over the life of a data set: added images, damage, kills."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._prepared import Prepared
from tests.conftest import draw_stripes
from tests.damage import flip_bit
from tests.flows.tiny import tiny_training
from unfreeze.models.images import activations
from unfreeze.models.images.activations import forward
from unfreeze.models.images.pixels import cache as cache_module
from unfreeze.models.images.pixels.decode import read_image
from unfreeze.models.store import row_store

pytestmark = pytest.mark.usefixtures("one_thread")


RECIPE = [{"name": "head", "precompute": True, "lr": 0.01}, {"name": "augmented", "views": 2, "lr": 0.01}]


class PlugPulledError(Exception):
    """Stands for whatever ends a process in the middle of a preparation."""


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    draw_stripes(tmp_path / "stripes", 12, seed=0)
    return tmp_path / "stripes"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Images decoded, and images that were sent through a body for their activations; a pass after `dies_at` fails."""
    counts = {"decoded": 0, "computed": 0, "dies_at": 10**9}

    def reading(*arguments: Any) -> Image.Image:
        counts["decoded"] += 1
        return read_image(*arguments)

    def computing(*arguments: Any) -> Any:
        for made in forward(*arguments):
            counts["computed"] += len(made)
            if counts["computed"] > counts["dies_at"]:
                raise PlugPulledError
            yield made

    monkeypatch.setattr(cache_module, "read_image", reading)
    monkeypatch.setattr(activations, "forward", computing)
    monkeypatch.setattr(row_store, "MOST_ROWS", 16)
    return counts


def trained(source: Path, folder: Path) -> dict[str, float]:
    """Metrics of a whole training in a workspace."""
    folder.mkdir(exist_ok=True)
    prepared = Prepared(tiny_training(source, recipe=RECIPE), folder)
    return prepared.run(prepared.bind())[0]


@pytest.mark.slow
def test_a_training_after_kills_and_damage_equals_an_uninterrupted_one(
    stripes: Path, tmp_path: Path, work: dict[str, int]
) -> None:
    expected = trained(stripes, tmp_path / "whole")
    decoded, computed = work["decoded"], work["computed"]
    # Killed in the second lot of a view of the training images, and in another view.
    for more in (20, 50):
        work["dies_at"] = work["computed"] + more
        with pytest.raises(PlugPulledError):
            trained(stripes, tmp_path / "killed")
    work["dies_at"] = 10**9
    assert trained(stripes, tmp_path / "killed") == expected
    assert work["decoded"] == 2 * decoded
    assert 2 * computed < work["computed"] <= 2 * computed + 2 * 16

    work["decoded"] = work["computed"] = 0
    damaged = [min((tmp_path / "killed" / "cache" / kind).glob("*.rows")) for kind in ("images", "activations")]
    for path in damaged:
        flip_bit(path)
    assert trained(stripes, tmp_path / "killed") == expected
    assert work["decoded"] == work["computed"] == 1


@pytest.mark.slow
def test_a_training_on_one_image_more_decodes_that_one_and_equals_one_from_nothing(
    stripes: Path, tmp_path: Path, work: dict[str, int]
) -> None:
    trained(stripes, tmp_path / "grown")
    noise = np.random.default_rng(5).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(stripes / "down" / "new.png")
    work["decoded"] = work["computed"] = 0
    grown = trained(stripes, tmp_path / "grown")
    assert work["decoded"] == 1
    assert work["computed"] <= 5  # of each view of its split, and of images that moved to the other
    assert grown == trained(stripes, tmp_path / "anew")
