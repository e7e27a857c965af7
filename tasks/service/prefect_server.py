"""Prefect's server, closed to other pages and programs, and ended with the process that started it.

By default Prefect answers any web page open in a browser on the same machine, under any host name, and a worker runs
any deployment's code. Credentials, allowed origins and CSRF tokens are Prefect's own settings; the host check and the
page's content security policy are added here.
"""

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from unfreeze.tasks.machine.environment import credentials, home, make_home
from unfreeze.tasks.machine.processes import own_module
from unfreeze.tasks.machine.servers import responds
from unfreeze.tasks.service.supervise import wait_for

if TYPE_CHECKING:
    from unfreeze.tasks.tracking.publisher import Published

SECONDS_TO_START = 180
EMBEDDED = "UNFREEZE_EMBEDDED_PREFECT"
"""Environment variable of a process with a private server, and of its children."""
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' {addresses}; "
    "frame-ancestors 'none'"
)
"""Makes the browser refuse all requests of the page to other servers."""


def own_name(host: str) -> str:
    """The host name for browsers and workers; a server that listens on all addresses has none of its own."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def server_settings(host: str, port: int) -> dict[str, str]:
    """Settings of a server at that address that keep strangers out and the page from contacting other servers."""
    origins = dict.fromkeys(f"http://{name}:{port}" for name in (host, "127.0.0.1", "localhost"))
    return {
        "PREFECT_SERVER_API_AUTH_STRING": credentials(),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        # The second UI contacts an analytics host; the promotional content of the first links there.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Prefect's 10 s wait for SQLite's lock is too short on a busy machine.
        "PREFECT_SERVER_DATABASE_TIMEOUT": os.environ.get("PREFECT_SERVER_DATABASE_TIMEOUT", "60"),
    }


def knows_a_server() -> bool:
    """Whether this process already has a Prefect server, by its environment or Prefect's own settings."""
    settings = sys.modules.get("prefect.settings")  # not imported here, because that takes seconds
    return bool(os.environ.get("PREFECT_API_URL") or (settings is not None and settings.PREFECT_API_URL.value()))


def start_embedded() -> Callable[[], None]:
    """Start a server without pages for this process, and use it; returns a function that waits until it answers.

    It listens on a port picked by the system, and ends with this process, however that ends.
    """
    log = make_home() / "logs" / "prefect-embedded.log"
    log.parent.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening, log.open("ab") as output:
        port, descriptor = listening.getsockname()[1], listening.fileno()
        settings = server_settings("127.0.0.1", port)
        server = psutil.Popen(
            own_module("unfreeze.tasks.service.prefect_server", "--descriptor", str(descriptor)),
            env={**os.environ, **settings, "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_UI_ENABLED": "0"},
            pass_fds=(descriptor,),
            # Never written to; it closes when this process ends, which ends the server.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C must reach only this process, which still reports its final states
        )
    os.environ["PREFECT_API_URL"] = api = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_AUTH_STRING"] = settings["PREFECT_SERVER_API_AUTH_STRING"]
    os.environ[EMBEDDED] = "1"
    os.environ["PREFECT_UI_URL"] = ""  # there is no page to link to
    return lambda: wait_for("Prefect's server", server, lambda: responds(f"{api}/health"), log, SECONDS_TO_START)


def end_gone_runs() -> "list[Published]":
    """End runs and flow runs of killed processes, and publish unpublished runs; returns those."""
    from unfreeze.tasks.machine.flow_runs import end_gone_flow_runs, gone_flow_runs
    from unfreeze.tasks.tracking.publisher import sync

    try:
        published = sync()
        if whole := [each.run_id for each in published if not each.left]:
            from unfreeze.tasks.report.publish import report_if_owed  # imports torch

            for run_id in whole:
                report_if_owed(run_id)
    finally:  # even if MLflow fails
        if gone_flow_runs():
            from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

            if not knows_a_server():
                start_embedded()()  # on the shared database of the private servers of trainings here
            api = os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value()
            # Prefect read its settings before that server started.
            own = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: os.environ.get("PREFECT_API_AUTH_STRING")}
            if responds(f"{api}/health"):
                with temporary_settings({name: value for name, value in own.items() if value}):
                    end_gone_flow_runs()
    return published


# --- in the server's own process


def guarded(app: Any, hosts: list[str], addresses: list[str]) -> Any:
    """Wrap an ASGI app: only requests to one of `hosts` are answered, and pages load nothing from elsewhere.

    `hosts` are names without ports. Under any other name another site's page could pass for ours, because browsers
    compare names. Pages may connect to `addresses` besides their own host.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    policy = CONTENT_SECURITY_POLICY.format(addresses=" ".join(addresses)).encode()

    async def with_policy(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", policy)]
            await send(message)

        await app(scope, receive, send_with_policy)

    return TrustedHostMiddleware(with_policy, allowed_hosts=hosts, www_redirect=False)


def serve(host: str, port: int, descriptor: int | None) -> None:
    """Serve until a signal, or on the listening socket of a given descriptor until stdin closes."""
    import prefect
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Prefect's migrations fail if the first two servers of a database start simultaneously.
            with FileLock(home() / "prefect.lock"):
                await super().startup(sockets)

    # The setting alone would leave the second UI, which contacts an analytics host, one click away.
    prefect.__ui_v2_static_path__ = Path("not served")
    settings = get_current_settings().server
    names = ["127.0.0.1", "localhost", own_name(host)]
    addresses = [f"{kind}://{name}:{port}" for name in names for kind in ("http", "ws")]
    config = uvicorn.Config(
        guarded(create_app(final=True), names, addresses),
        host=host,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=str(settings.logging_level).lower(),
        lifespan="on",
    )
    server = Server(config)
    if descriptor is None:
        server.run()
        return
    threading.Thread(target=_end_with_stdin, args=[server], daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_stdin(server: Any) -> None:
    while sys.stdin.buffer.read(1024):
        pass
    server.should_exit = True
    time.sleep(10)
    os._exit(1)  # it hangs, and its parent is gone


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--descriptor", type=int)
    serve(**vars(parser.parse_args()))
