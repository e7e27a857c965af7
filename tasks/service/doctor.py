"""Checks of `unfreeze doctor`: what this machine has, and what would stop a training or the service."""

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal, NamedTuple
from urllib.request import getproxies_environment

import psutil
from packaging.requirements import Requirement

from unfreeze.models.settings.addresses import masked
from unfreeze.models.settings.retrain import Service
from unfreeze.tasks.machine.environment import home, live_service, tracking_store
from unfreeze.tasks.machine.servers import addresses, responds
from unfreeze.tasks.machine.storage import state_of_storage

SCARCE = 5e9
"""Free bytes below which a training may fill the disk: caches and artifacts of photos take gigabytes."""


class Check(NamedTuple):
    """One line: what was looked at, whether it works (`fail` blocks trainings), and what was found or is to be done."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str


def checks() -> Iterator[Check]:
    """Look at everything, the quick things first."""
    yield _versions()
    yield _storage()
    yield from _servers()
    yield from _ports()
    yield _proxies()
    yield _gpu()
    yield _weights()


def _versions() -> Check:
    wrong: list[str] = []
    for requirement in map(Requirement, requires("unfreeze") or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            try:
                found = version(requirement.name)
            except PackageNotFoundError:
                found = ""
            if not found or not requirement.specifier.contains(found, prereleases=True):
                wrong.append(shlex.quote(str(requirement)))
    if wrong:
        return Check("versions", "fail", f"missing or of another version: pip install {' '.join(wrong)}")
    main = ", ".join(f"{name} {version(name)}" for name in ("unfreeze", "torch", "timm", "prefect", "mlflow"))
    return Check("versions", "ok", f"Python {sys.version.split()[0]}, {main}")


def _storage() -> Check:
    if trouble := state_of_storage():
        return Check("disk", "fail", trouble)
    there = next(each for each in (home(), *home().parents) if each.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:,.1f} GB free for {home()}"
    if free < SCARCE:
        return Check("disk", "warn", f"{text}; `unfreeze clean` shows what can go, UNFREEZE_HOME names another folder")
    return Check("disk", "ok", f"{text}; its databases are sound")


def _servers() -> Iterator[Check]:
    known = addresses()
    for name, variable, without in (
        ("Prefect", "PREFECT_API_URL", "no server is named: a command runs its own; pages need `unfreeze up`"),
        ("MLflow", "MLFLOW_TRACKING_URI", f"{tracking_store()}, without a server; pages need `unfreeze up`"),
    ):
        if name not in known:
            yield Check(name, "ok", without)
        elif responds(f"{known[name].rstrip('/')}/health"):
            yield Check(name, "ok", f"{masked(known[name])} answers")
        else:
            text = f"{masked(known[name])} does not answer: start it, correct {variable}, or unset it"
            yield Check(name, "fail", text)


def _ports() -> Iterator[Check]:
    if live_service() is not None:
        yield Check("ports", "ok", "`unfreeze up` is running")
        return
    ports = Service()
    for flag, port in (("--prefect-port", ports.prefect_port), ("--mlflow-port", ports.mlflow_port)):
        try:
            socket.create_server((ports.host, port)).close()
            yield Check("port", "ok", f"{port} is free for `unfreeze up`")
        except OSError as error:
            why = _user_of(port) or error.strerror
            yield Check("port", "warn", f"{port} is taken ({why}): unfreeze up {flag} {port + 1}")


def _user_of(port: int) -> str | None:
    """The process that listens on a port, if this user may know."""
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                return f"process {each.pid}, {psutil.Process(each.pid).name()}"
    except psutil.Error:
        pass
    return None


def _proxies() -> Check:
    proxies = getproxies_environment()
    exempt = proxies.pop("no", "")
    if not proxies:
        return Check("proxies", "ok", "none")
    named = ", ".join(sorted({masked(each) for each in proxies.values()}))
    return Check("proxies", "ok", f"{named} for downloads, not for {exempt}: add your own servers to NO_PROXY")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Check("GPU", "ok", ", ".join(names))
    if torch.backends.mps.is_available():
        return Check("GPU", "ok", "Apple's, as device mps")
    cores = f"trainings use {os.cpu_count()} CPU cores"
    if shutil.which("nvidia-smi"):
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda or 'none'}"
        return Check("GPU", "warn", f"there is one, but {built}, which cannot use it: update the driver; {cores}")
    return Check("GPU", "warn", f"none: {cores}, which takes minutes for a thousand photos")


def _weights() -> Check:
    from huggingface_hub.constants import ENDPOINT

    from unfreeze.models.images.backbone_choice import CANDIDATES
    from unfreeze.models.images.networks.weights import timm_name, weights_at_hand

    here = f"here: {', '.join(each for each in CANDIDATES if weights_at_hand(timm_name(each))) or 'none'}"
    if responds(ENDPOINT):
        return Check("weights", "ok", f"{here}; those of other networks are downloaded from {ENDPOINT}")
    return Check("weights", "warn", f"{here}; {ENDPOINT} cannot be reached for others: see --model.weights PATH")
