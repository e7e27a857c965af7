"""The folder of a trained model, as it comes from a disk or a registry."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.damage import DAMAGES, Damage
from unfreeze.models.errors import UserError
from unfreeze.models.store.model_folder import load_networks, read_description, save_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks, a description, and a file that the modality wrote before."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "encoder.json").write_text(json.dumps({"columns": ["shop", "day"] * 20}))
    torch.manual_seed(0)
    states = [nn.Linear(40, 20).state_dict() for _ in range(2)]
    save_model_folder(place, states, {"modality": "images"})
    return place


def test_a_folder_that_was_moved_is_read(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "elsewhere")
    assert read_description(moved)["modality"] == "images"
    assert len(load_networks(moved, lambda: nn.Linear(40, 20))) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "network-1.safetensors", "model.json", "encoder.json"])
@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Damage) -> None:
    damage(folder / name)
    with pytest.raises(UserError, match=rf"{name} is damaged.*download the model again"):
        read_description(folder)


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_damaged_checksums_are_damage_as_well(folder: Path, damage: Damage) -> None:
    damage(folder / "checksums.json")
    with pytest.raises(UserError, match="is damaged"):
        read_description(folder)


def test_a_folder_of_another_format_is_not_called_damaged(folder: Path) -> None:
    (folder / "checksums.json").unlink()
    (folder / "model.json").write_text(json.dumps({"format": 4}))
    with pytest.raises(UserError, match="model format 4"):
        read_description(folder)


def test_what_a_person_adds_is_no_damage(folder: Path) -> None:
    (folder / "notes.txt").write_text("good with cats")
    assert read_description(folder)["networks"] == 2
