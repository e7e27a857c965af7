"""Steps 1 to 4 with TTA on the photos: `unfreeze train` against calling `models` directly, and where the rest goes.

Both run in processes of their own with cold caches. The items are timed apart, so they only roughly add up.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks._prepared import PHOTOS, prepared
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec

HEAD_ONLY = Path(__file__).parents[1] / "deployments" / "configs" / "head_only.yaml"


def seconds_of(code: str, environment: dict[str, str]) -> float:
    """Seconds that a fresh interpreter takes to run `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def directly() -> None:
    """The same training without Prefect and MLflow, in this process."""
    params = build_spec(TrainImages, yaml.safe_load(HEAD_ONLY.read_text()), {"data.source": str(PHOTOS)})
    with prepared(params) as photos:
        photos.precompute()
        began = time.perf_counter()
        photos.train(photos.bind())
        print(json.dumps({**photos.seconds, "train and evaluate": time.perf_counter() - began}))


def main() -> None:
    """Measure and print the table."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "UNFREEZE_HOME": folder, "PREFECT_HOME": f"{folder}/prefect"}
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        began = time.perf_counter()
        alone = subprocess.run(
            [sys.executable, "-m", "benchmarks.overhead", "directly"], check=True, capture_output=True, text=True
        )
        direct = time.perf_counter() - began
        print(f"{'models alone, process and imports included':66} {direct:7.1f} s   {alone.stdout.strip()}", flush=True)
        train = ["train", str(PHOTOS), "--config", str(HEAD_ONLY), "--json"]
        command = [sys.executable, "-m", "unfreeze.flows.cli", *train]
        for stores in ("its first run creates Prefect's and MLflow's stores", "stores that are there, cold caches"):
            began = time.perf_counter()
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            whole = time.perf_counter() - began
            accuracy = json.loads(run.stdout.splitlines()[-1])["metrics"]["valid/accuracy_tta"]
            print(f"unfreeze train, {stores}".ljust(66), f"{whole:7.1f} s   TTA accuracy {accuracy:.4f}")
            print("    orchestration and tracking add".ljust(66), f"{whole - direct:7.1f} s", flush=True)
            shutil.rmtree(Path(folder) / "cache")
        print("of which:")
        imports = seconds_of("import unfreeze.models.images.data", environment)
        flow = seconds_of("import unfreeze.flows.train_images", environment)
        items = {
            "importing prefect, mlflow and matplotlib": flow - imports,
            "starting Prefect's embedded server": seconds_of(
                "from unfreeze.tasks.service.prefect_server import start_embedded; start_embedded()()", environment
            ),
            "opening MLflow's SQLite store": seconds_of(
                "from unfreeze.tasks import tracking; tracking.client().search_experiments()", environment
            ),
        }
        for name, value in items.items():
            print(f"    {name:62} {value:7.1f} s")
        print("    (the API starts while torch is imported; log lines of the run show the steps)")


if __name__ == "__main__":
    directly() if sys.argv[1:] == ["directly"] else main()
