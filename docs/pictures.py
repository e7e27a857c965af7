"""Make the pictures of the documentation from our own runs: ``python docs/pictures.py PHOTOS [NAME ...]``.

PHOTOS is a folder of class folders whose licence permits publishing; docs/pictures shows Arda Mavi's "Sign Language
Digits Dataset" (Apache-2.0). Before, in this order, with the same working folder and ``UNFREEZE_HOME``::

    unfreeze train PHOTOS --data.size 96 --data.test_fraction 0.2
    unfreeze train PHOTOS --data.size 64 --recipe course --recipe.full.patience none --snapshots 3
    unfreeze look PHOTOS --out look.html
    unfreeze explain PHOTOS/1 PHOTOS/CLASS/IMAGE.jpg ... --out explain.html

The pages of servers need ``unfreeze up`` beside it. Playwright drives the Chromium of the system.
"""

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import torch
from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from unfreeze.models.images.pixels.augmentation import apply_views, numbered_view
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.settings import AugmentSpec
from unfreeze.tasks.machine.environment import home

OUT = Path(__file__).parent / "pictures"
FLIPPED = AugmentSpec(max_rotate=20, max_zoom=1.25, max_shift=0.1, max_lighting=0.2)
"""Views that a reader sees the difference of; the defaults change less."""
GROUPS = ("early", "late", "head")


def augmentation(photos: Path) -> None:
    """Eight views of one image."""
    image = _pixels(photos)
    views = [_view(image, number, FLIPPED) for number in range(8)]
    _save_images("augmentation", views, ["the image", *[f"view {number}" for number in range(1, 8)]], rows=2)


def sizes(photos: Path) -> None:
    """One image at three sizes, enlarged to the same."""
    image = Image.fromarray(_pixels(photos))
    _save_images("sizes", [np.asarray(image.resize((n, n))) for n in (24, 48, 96)], ["24 px", "48 px", "96 px"], rows=1)


def tta(photos: Path) -> None:
    """The image that the first model is least sure of, its views and their probabilities."""
    folder = mlflow.artifacts.download_artifacts(f"models:/{photos.name}-classifier/1")
    model = ImagePredictor(next(Path(folder).rglob("model.json")).parent)
    files = sorted(photos.rglob("*.jpg"))[::7]
    spread = model.probabilities([file.read_bytes() for file in files], tta=False)
    image = _pixels(files[int(np.argmin(spread.max(axis=1)))])
    views = [_view(image, number, AugmentSpec()) for number in range(5)]
    each = model.probabilities([_png(view) for view in views], tta=False)
    best = np.argsort(each.mean(axis=0))[::-1][:3]
    captions = ["\n".join(f"{model.classes[k]}: {row[k]:.2f}" for k in best) for row in (*each, each.mean(axis=0))]
    titles = ["plain", *[f"view {number}" for number in range(1, 5)], "average"]
    blank = np.full_like(image, 255)
    _save_images("tta", [*views, blank], [f"{t}\n{c}" for t, c in zip(titles, captions, strict=True)], rows=1)


def schedule(photos: Path) -> None:
    """The lr of each layer group, and the validation loss, of the first run."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for group in GROUPS:
        axes.plot(*_last_stage(_runs()[0], f"lr/{group}"), label=f"lr of the {group} layers")
    axes.set(yscale="log", xlabel="optimizer step", ylabel="learning rate", ylim=(1e-6, None))
    _with_loss(axes, _runs()[0])
    _save("schedule", figure)


def sgdr(photos: Path) -> None:
    """The head's lr and the validation loss over the cycles of the second run, whose ends are the snapshots."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    steps, lrs = _last_stage(_runs()[1], "lr/head")
    axes.plot(steps, lrs, label="lr of the head")
    axes.set(xlabel="optimizer step", ylabel="learning rate")
    ends = [i for i in range(len(lrs)) if i + 1 == len(lrs) or (lrs[i + 1] > 5 * lrs[i] and i > len(lrs) // 20)]
    for number, end in enumerate(ends, 1):
        pointer = {"arrowstyle": "->"}
        axes.annotate(
            f"snapshot {number}", (steps[end], lrs[end]), (steps[end], max(lrs) / 4), ha="right", arrowprops=pointer
        )
    _with_loss(axes, _runs()[1])
    _save("sgdr", figure)


def finder(photos: Path) -> None:
    """The finder's curve of the second run's head, as it is among its artifacts."""
    client = mlflow.MlflowClient()
    run = _runs()[1].info.run_id
    path = client.download_artifacts(run, "learning_rate/head.png")
    _save_screenshot("finder", Path(path).read_bytes())


def pages(photos: Path) -> None:
    """Report, first look and explanation, as files."""
    client = mlflow.MlflowClient()
    report = Path(client.download_artifacts(_runs()[0].info.run_id, "report.html"))

    def labels(page: Page) -> None:
        page.goto(Path("look.html").resolve().as_uri())
        shorten = "here => { body.innerHTML = body.innerHTML.replaceAll('<wbr>', '').replaceAll(here, '') }"
        page.evaluate("window.body = document.body")
        page.evaluate(shorten, f"{Path.cwd()}/")
        show = "heading => heading.scrollIntoView({behavior: 'instant'})"
        page.locator("h2", has_text="suspicious labels").evaluate(show)

    _shoot({
        "report": lambda page: page.goto(report.resolve().as_uri()),
        "look": labels,
        "explain": lambda page: page.goto(Path("explain.html").resolve().as_uri()),
    })  # fmt: skip


def servers(photos: Path) -> None:
    """Prefect's page of the first run, and MLflow's comparison of both."""

    def prefect(page: Page) -> None:
        page.goto(os.environ["PREFECT_UI"] + "/login")
        page.get_by_role("textbox").fill((home() / "prefect.auth").read_text().strip())
        page.keyboard.press("Enter")
        page.wait_for_timeout(2000)
        page.goto(os.environ["PREFECT_UI"] + "/runs")
        page.get_by_text("train signs").last.click()
        page.wait_for_timeout(5000)

    def compare(page: Page) -> None:
        page.goto(f"{os.environ['MLFLOW_UI']}/#/experiments/{_runs()[0].info.experiment_id}/runs?compareRunsMode=CHART")
        page.wait_for_timeout(6000)
        page.mouse.click(1243, 36)  # close the assistant
        page.get_by_placeholder("Search metric charts").fill("valid/loss|valid/accuracy|lr/head|train/loss")
        page.wait_for_timeout(4000)

    _shoot({"prefect": prefect, "mlflow": compare})


PICTURES: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (augmentation, sizes, tta, schedule, sgdr, finder, pages, servers)
}


def main(photos: Path, names: list[str]) -> None:
    """Make the named pictures, or all of them."""
    mlflow.set_tracking_uri(f"sqlite:///{home() / 'mlflow.db'}")
    OUT.mkdir(exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name](photos)


def _runs() -> list[Run]:
    """The finished trainings, the oldest first."""
    client = mlflow.MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    kind = "tags.`unfreeze.kind` = 'train-images' and attributes.status = 'FINISHED'"
    return list(client.search_runs(experiments, kind, order_by=["attributes.start_time ASC"]))


def _history(run: Run, metric: str) -> tuple[list[int], list[float]]:
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, metric)
    points = sorted({point.step: point.value for point in points}.items())
    return [step for step, _ in points], [value for _, value in points]


def _last_stage(run: Run, metric: str) -> tuple[list[int], list[float]]:
    """The steps in which the early layers are trained."""
    first = _history(run, "lr/early")[0][0]
    pairs = [(step, value) for step, value in zip(*_history(run, metric), strict=True) if step >= first]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _with_loss(axes: plt.Axes, run: Run) -> None:
    """Add the validation loss at each epoch's end, without the final evaluation, to a plot of lrs."""
    beside = axes.twinx()
    steps, losses = _last_stage(run, "valid/loss")
    beside.plot(steps[:-1], losses[:-1], "o--", color="gray", label="validation loss")
    beside.set_ylabel("validation loss")
    beside.set_ylim(0, None)
    axes.figure.legend(loc="upper right", bbox_to_anchor=(1, 1), bbox_transform=axes.transAxes, fontsize=8)


def _pixels(file: Path) -> np.ndarray:
    """An image (96, 96, 3) uint8, of a folder its first."""
    path = file if file.is_file() else min(file.rglob("*.jpg"))
    return np.asarray(Image.open(path).convert("RGB").resize((96, 96)))


def _view(image: np.ndarray, number: int, augment: AugmentSpec) -> np.ndarray:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    view = apply_views(pixels, numbered_view(number, ["a picture of the documentation"], augment))
    return np.asarray((view[0].clamp(0, 1) * 255).permute(1, 2, 0).byte())


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _save_images(name: str, images: list[np.ndarray], captions: list[str], rows: int) -> None:
    columns = len(images) // rows
    height = 2.1 + 0.2 * max(caption.count("\n") + 1 for caption in captions)
    figure, axes = plt.subplots(rows, columns, figsize=(2 * columns, height * rows), squeeze=False)
    for place, image, caption in zip(axes.flat, images, captions, strict=True):
        place.imshow(image, interpolation="nearest")
        place.set_title(caption, fontsize=10)
        place.axis("off")
    _save(name, figure)


def _save(name: str, figure: plt.Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    _save_screenshot(name, buffer.getvalue())


def _save_screenshot(name: str, png: bytes) -> None:
    """Write a PNG of 128 colours, which is small enough to commit."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(OUT / f"{name}.png", optimize=True)


def _shoot(shots: dict[str, Callable[[Page], object]]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, show in shots.items():
            page = browser.new_page(viewport={"width": 1280, "height": 1100}, color_scheme="light")
            show(page)
            _save_screenshot(name, page.screenshot())
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
