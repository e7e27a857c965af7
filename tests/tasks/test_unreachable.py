"""Servers behind proxies, and servers that cannot be reached."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import requests
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from tests.flows.tiny import tiny_table, write_sales
from unfreeze.flows.cli import main
from unfreeze.tasks.machine import environment, servers
from unfreeze.tasks.machine.servers import responds
from unfreeze.tasks.tracking import server

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
RUN = "0" * 32
ASK_MLFLOW = [
    *(["runs"], ["sync"], ["open", "--print"], ["promote", "photos", "2"], ["compare", RUN, RUN], ["report", RUN]),
    *(["resume", RUN], ["replay", RUN], ["explain", "photos", "."], ["predict", "photos", "."], ["retrain", "photos"]),
    ["up"],
]
ASK_PREFECT = [
    *(["resume", RUN], ["replay", RUN], ["predict", "photos", "."], ["retrain", "photos"], ["train", "digits"]),
    *(["find-lr", "digits"], ["sweep", "digits"], ["sweep", "--study", "x"], ["up"]),
]


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """A socket that listens, takes every connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def proxy(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a proxy that never answers, in an environment that names no proxy yet."""
    _was_asked(silent)
    for name in (*PROXIES, "NO_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, "")  # so that it is put back after the test
            monkeypatch.delenv(spelling)
    return f"http://127.0.0.1:{silent.getsockname()[1]}"


def _was_asked(silent: socket.socket) -> bool:
    """Whether anything has connected since the last call."""
    asked = False
    with suppress(BlockingIOError):
        while True:
            silent.accept()[0].close()
            asked = True
    return asked


def _ask_with_every_client(address: str) -> None:
    with suppress(OSError, httpx.HTTPError):
        httpx.get(address, timeout=0.3)
    with suppress(OSError):
        requests.get(address, timeout=0.3)
    with suppress(OSError):
        urllib.request.build_opener().open(address, timeout=0.3)
    responds(address)


@pytest.mark.parametrize(
    ("name", "kind", "exceptions"),
    [
        *((spelling, "http", {}) for name in PROXIES for spelling in (name, name.lower())),
        *((name, "socks5", {}) for name in PROXIES),
        ("HTTP_PROXY", "http", {"NO_PROXY": "a.example"}),
        ("http_proxy", "http", {"no_proxy": "a.example , b.example"}),
    ],
    ids=str,
)
def test_no_request_to_this_machine_goes_through_a_proxy(
    name: str, kind: str, exceptions: dict[str, str], proxy: str, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {name: proxy.replace("http", kind), **exceptions}.items():
        monkeypatch.setenv(variable, value)
    environment.set_defaults()
    for address in ("http://127.0.0.1:9", "https://localhost:9", f"http://{socket.gethostname()}:9"):
        _ask_with_every_client(address)
    assert not _was_asked(silent)
    assert get_proxy(parse_uri("ws://127.0.0.1:9/api/events/in")) is None
    for value in exceptions.values():
        assert os.environ["no_proxy"].startswith(value.replace(" ", ""))


def test_other_requests_still_go_through_the_proxy(
    proxy: str, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    environment.set_defaults()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get("http://models.example", timeout=0.3)
    assert _was_asked(silent)


def test_the_ipv6_address_of_this_machine_is_asked_without_the_proxy(
    proxy: str, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    environment.set_defaults()
    with suppress(OSError, httpx.HTTPError):
        httpx.get("http://[::1]:9", timeout=0.3)
    with suppress(OSError):
        requests.get("http://[::1]:9", timeout=0.3)
    responds("http://[::1]:9")
    assert not _was_asked(silent)


@pytest.mark.parametrize("exceptions", ["*", "a.example,*"])
def test_an_environment_without_a_proxy_or_with_one_for_nothing_stays_as_it_is(
    exceptions: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.set_defaults()
    assert {"NO_PROXY", "no_proxy"}.isdisjoint(os.environ)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", exceptions)
    environment.set_defaults()
    assert os.environ["NO_PROXY"] == exceptions
    assert "no_proxy" not in os.environ


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Less of it, for servers that are known not to answer; and signals as before, which `up` ignores as it ends."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for module in (servers, server):
        monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 0.1)
    yield 0.1
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _line(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", ASK_MLFLOW, ids=" ".join)
def test_an_mlflow_that_takes_connections_and_never_answers_is_a_line(
    command: list[str],
    silent: socket.socket,
    own_home: Path,
    patience: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert _line(capsys, command).startswith(f"unfreeze: MLflow at {address} does not answer (timed out); start it")


@pytest.mark.parametrize("command", ASK_PREFECT, ids=" ".join)
def test_a_prefect_that_takes_connections_and_never_answers_is_a_line(
    command: list[str],
    silent: socket.socket,
    home_with_store: Path,
    patience: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
    monkeypatch.setenv("PREFECT_API_URL", api)
    line = _line(capsys, command)
    known = command[0] not in ("resume", "replay")
    assert line.startswith(f"unfreeze: Prefect at {api} does not answer" if known else f"unfreeze: run '{RUN}'")


@pytest.mark.parametrize(
    ("scheme", "trouble"),
    [
        *itertools.product(["http", "postgresql+psycopg", "mysql+pymysql"], ["refuses", "is silent"]),
        ("http", "is behind a silent proxy"),
    ],
)
def test_a_tracking_server_or_database_that_cannot_be_reached_is_a_line(
    scheme: str,
    trouble: str,
    silent: socket.socket,
    proxy: str,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (servers, server):
        monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 1.0)
    port = silent.getsockname()[1]
    if trouble == "refuses":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
    host = "127.0.0.1"
    if trouble == "is behind a silent proxy":
        monkeypatch.setenv("HTTP_PROXY", proxy)
        host = "tracking.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://{host}:{port}/mlflow")
    reason = "refused" if trouble == "refuses" else "time"
    assert reason in _line(capsys, ["runs"]).split("does not answer")[1].split("; start it")[0]


@pytest.mark.slow
def test_a_training_behind_a_proxy_that_never_answers_ends_well(proxy: str, tmp_path: Path, own_home: Path) -> None:
    config = tmp_path / "spec.json"
    config.write_text(tiny_table(write_sales(tmp_path)).model_dump_json())
    variables = {spelling: proxy for name in PROXIES for spelling in (name, name.lower())}
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train-table", "--config", str(config)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_a_command_says_within_ten_seconds_that_a_server_is_silent(
    variable: str, silent: socket.socket, own_home: Path
) -> None:
    address, began = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "unfreeze.flows.cli",
            *(["runs"] if variable == "MLFLOW_TRACKING_URI" else ["train", "digits"]),
        ],
        env={**os.environ, variable: address},
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - began < 10
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_port_where_another_protocol_is_spoken_is_a_line(
    own_home: Path, patience: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def greet(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                with listening.accept()[0] as connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                    connection.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=greet, args=[listening], daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert "does not answer (" in _line(capsys, ["runs"])
        listening.shutdown(socket.SHUT_RDWR)
