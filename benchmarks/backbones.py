"""`model.backbone auto`: what is ranked best, in which processor time, and what each network would have come to.

Three tenths of every set test: logistic regression on the activations of all other images, plain. With an argument,
only sets whose name holds it.
"""

import sys
import time

import numpy as np
import torch

from benchmarks._prepared import PHOTOS, Prepared, prepared
from unfreeze.models.images.activations import precompute
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store.row_store import StoredRows


def test_loss(photos: Prepared) -> float:
    """Log loss of the test images."""
    data = photos.bind()
    files = precompute(data, data.learner(), 0, [("train", 0), ("valid", 0), ("test", 0)], photos.workspace)
    rows = {split: StoredRows(files[split, 0]) for split in ("train", "valid", "test")}
    known, tested = (
        np.concatenate([rows[each].gather(np.arange(len(rows[each]))).numpy() for each in splits])
        for splits in (("train", "valid"), ("test",))
    )
    targets = np.concatenate([data.targets(split) for split in ("train", "valid")])
    head = fit_linear_head([known], targets, data.target.outputs)
    logits = torch.from_numpy(tested) @ head["0.weight"].T + head["0.bias"]
    return data.target.loss_of(data.target.predictions(logits), data.targets("test"))


def main() -> None:
    """Measure and print every set."""
    for source in (PHOTOS.with_name(name) for name in ("signs", "trash", "cats_dogs")):
        if (sys.argv[1] if len(sys.argv) > 1 else "") not in source.name:
            continue
        params = build_spec(TrainImages, {"data": {"source": str(source), "test_fraction": 0.3}})
        auto = build_spec(TrainImages, params.model_dump(), {"model.backbone": "auto"})
        with prepared(params) as photos:
            began = time.process_time()
            ranking = Prepared(auto, photos.workspace.folder)
            seconds = time.process_time() - began
            for line in ranking.bind().decided():
                print(f"{source.name}: {line}", flush=True)
            for each in ranking.bind().ranking:
                named = build_spec(TrainImages, params.model_dump(), {"model.backbone": each.name})
                loss = test_loss(Prepared(named, photos.workspace.folder))
                print(f"{source.name}: {each.name}: test loss {loss:.4f}", flush=True)
            print(f"{source.name}: {seconds:.1f} s of processor time to prepare with a ranking", flush=True)
            began = time.process_time()
            photos.run(photos.bind())
            print(f"{source.name}: {time.process_time() - began:.1f} s for a training of lite0", flush=True)


if __name__ == "__main__":
    main()
