"""Every test has a home of its own: caches, MLflow store and Prefect database live in temporary folders."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

# Before anything imports prefect or mlflow: both read their settings once.
_HOME = Path(tempfile.mkdtemp(prefix="unfreeze-tests-"))
os.environ.update(
    {
        "UNFREEZE_HOME": str(_HOME / "home"),
        "PREFECT_HOME": str(_HOME / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(_HOME / "prefect" / "storage"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{_HOME / 'home' / 'mlflow.db'}",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "TEST_RUN": str(_HOME),
    }
)
_END_WHAT_IS_LEFT = """
import contextlib, os, psutil, shutil, sys
sys.stdin.buffer.read()
for each in psutil.process_iter():
    with contextlib.suppress(psutil.Error, OSError):
        if each.pid != os.getpid() and each.environ().get("TEST_RUN") == sys.argv[1]:
            each.kill()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
"""Servers and trainings end with the tests that started them, also where pytest is killed and ends no fixture."""
_WATCH = subprocess.Popen(
    [sys.executable, "-c", _END_WHAT_IS_LEFT, str(_HOME)],
    stdin=subprocess.PIPE,  # closes as this process ends, however it ends
    start_new_session=True,
)
os.environ.pop("PREFECT_API_URL", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # A process per core: threads of their own would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
(_HOME / "home").mkdir()
# A shell script that starts the tests with & has them ignore Ctrl-C, and nohup the end of a terminal, which some of
# them are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A first example that imports something, or a busy machine, says nothing about what is tested.
settings.register_profile("whole", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.load_profile("whole")

SHARED = Path(__file__).parents[1].parent / "shared"
"""Real photos and weights beside the project, where there are any."""


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Prefect API with an empty database; it takes seconds to start, so there is one for all tests."""
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from unfreeze.tasks.machine.environment import credentials
    from unfreeze.tasks.service.prefect_server import EMBEDDED, start_embedded

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_UI_URL", EMBEDDED):
            patch.setenv(name, "")  # so that it is put back: commands that tests run find a server by themselves
        database = tmp_path_factory.mktemp("prefect") / "prefect.db"
        patch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{database}")
        wait_for_server = start_embedded()
        found = {PREFECT_API_URL: os.environ["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: credentials()}
    wait_for_server()
    with temporary_settings(found), _temporary_global_settings_context(get_settings_context()):
        yield


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own, with an MLflow store of its own."""
    home = tmp_path / "home"
    monkeypatch.setenv("UNFREEZE_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    return home


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with nothing in it, to copy: making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home_with_store(own_home: Path, new_store: Path) -> Path:
    """As `own_home`, with its MLflow store in place."""
    own_home.mkdir(mode=0o700)
    shutil.copy(new_store, own_home / "mlflow.db")
    return own_home


def draw_stripes(folder: Path, count: int, seed: int) -> None:
    """Draw so many little images per class: stripes across and stripes down."""
    generator = np.random.default_rng(seed)
    for label, axis in (("across", 0), ("down", 1)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            wave = 110 * np.sin(np.arange(40) * generator.uniform(0.6, 1.2) + generator.uniform(0, 6))
            pixels = 128 + np.expand_dims(wave, 1 - axis) + generator.normal(0, 20, (40, 40))
            grey = np.broadcast_to(pixels[..., None], (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / label / f"{seed}-{number}.png")


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 little images in two classes that a tiny network can tell apart."""
    folder = tmp_path_factory.mktemp("stripes")
    draw_stripes(folder, 24, seed=0)
    return folder


SQUARES = {"red": (230, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 230)}
"""Label -> colour of a square that an image has or has not."""


def draw_squares(folder: Path, count: int, seed: int) -> pd.DataFrame:
    """Draw so many images with up to three squares; a row each of ``id`` and ``tags``, in any order."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        pixels = generator.integers(90, 160, (40, 40, 3)).astype(np.uint8)
        labels = [label for label in SQUARES if generator.random() < 0.45]
        for label in labels:
            down, across = generator.integers(0, 26, 2)
            pixels[down : down + 14, across : across + 14] = SQUARES[label]
        Image.fromarray(pixels).save(folder / f"{seed}-{number}.png")
        generator.shuffle(labels)
        rows.append({"id": f"{seed}-{number}", "tags": ";".join(labels)})
    return pd.DataFrame(rows)


def pytest_configure(config: pytest.Config) -> None:
    """Without the slow tests, properties are tried on a quarter of the examples."""
    if "not slow" in config.option.markexpr:
        settings.load_profile("quick")
