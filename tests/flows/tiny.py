"""The smallest training that goes through every step."""

from pathlib import Path

from models.overrides import build_spec
from models.specs import TrainImages


def tiny_training(source: Path, **overrides: object) -> TrainImages:
    """A spec that trains a small random network on little pictures in seconds."""
    recipe = [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 2},
        {"name": "augmented", "views": 2, "cycles": 1},
        {"name": "full", "train": "all", "find_lr": True, "ratio": 3, "cycles": 2, "cycle_mult": 2, "patience": 5.0},
    ]
    config = {
        "data": {"source": str(source), "size": 32},
        "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
        "finder": {"steps": 12},
        "optimizer": {"batch_size": 8},
        "tta": {"n_aug": 2},
        "recipe": recipe,
        "tracking": {"system_metrics": False},
        "device": "cpu",
        "precision": "fp32",
    }
    return build_spec(TrainImages, config, dict(overrides))
