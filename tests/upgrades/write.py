"""Write what this release keeps, for the tests of later ones: `python -m tests.upgrades.write`.

A small archive per release: a home with an MLflow store (a training on a table that failed half-way, one that is
registered), a study, caches, and a classifier with what it says of two images. Archives are never written again.
"""

import os
import shutil
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ARCHIVES = Path(__file__).parent
STOPPED, STUDY, IMAGES = "stopped run", "kept", ("across/0-0.png", "down/0-1.png")


def main() -> None:
    """Train, sweep and pack."""
    target = ARCHIVES / f"{version('unfreeze')}.zip"
    if target.exists():
        sys.exit(f"{target} is there: what a release wrote does not change")
    import tests.conftest  # noqa: F401  # sets a home of its own, before the one below

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        os.environ |= {
            "UNFREEZE_HOME": str(home),
            "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
            "PREFECT_HOME": str(Path(folder) / "prefect"),
        }
        write(home, Path(folder) / "sources")
        (home / "written-in").write_text(folder)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and "prefect" not in path.parts and path.suffix not in (".lock", ".html"):
                    archive.write(path, path.relative_to(folder))
    print(f"{target}: {target.stat().st_size:,} bytes")


def write(home: Path, sources: Path) -> None:
    """Everything that the archive holds."""
    from prefect.testing.utilities import prefect_test_harness

    from tests.conftest import draw_stripes
    from tests.flows.tiny import tiny_table, tiny_training, write_sales
    from unfreeze.models.images.serving.predictor import ImagePredictor
    from unfreeze.models.settings.search import Dimension, TableSweep

    draw_stripes(sources / "lines", 4, seed=0)
    write_sales(sources)
    with prefect_test_harness(server_startup_timeout=120):
        from unfreeze.flows.sweep import sweep_tables
        from unfreeze.flows.train_images import train_images, train_tables
        from unfreeze.tasks.tracking import registry

        recipe: list[dict[str, Any]] = [{"name": "head", "precompute": True, "lr": 0.01}]
        small = {"model.backbone": "timm/test_efficientnet", "recipe": recipe, "tracking.cycle_checkpoints": False}
        train_images(tiny_training(sources / "lines", **small))
        train_tables(tiny_table(sources))
        stop_half_way(tiny_table(sources, **{"tracking.run_name": STOPPED}))
        space = [Dimension(name="recipe.all.lr", low=0.001, high=0.02, log=True)]
        sweep_tables(TableSweep(trials=3, study=STUDY, space=space), tiny_table(sources))
        classifier = registry.folder_of(registry.version_of("lines-classifier", "champion"))
    predictor = ImagePredictor(classifier, "cpu")
    said = predictor.probabilities([sources / "lines" / name for name in IMAGES])
    (home / "said.txt").write_text("\n".join(" ".join(f"{value:.6f}" for value in row) for row in said))
    shutil.rmtree(home / "cache" / "models")  # copies


def stop_half_way(training: Any) -> None:
    """A training whose plug is pulled after its first cycle."""
    from unfreeze.flows.train_images import train_tables
    from unfreeze.models.training import loop

    fit = loop.fit

    def pulled(*arguments: Any) -> Any:
        for step in fit(*arguments):
            yield step
            if step.kind == "cycle":
                raise RuntimeError("the plug was pulled")

    loop.fit = pulled
    try:
        state = train_tables(training, return_state=True)
        assert state.is_failed()
    finally:
        loop.fit = fit


if __name__ == "__main__":
    main()
