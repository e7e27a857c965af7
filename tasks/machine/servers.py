"""Checks, before heavy imports, that the servers named in the environment answer."""

import os
import time
from urllib.parse import urlsplit

import httpx

from unfreeze.models.errors import UserError
from unfreeze.models.settings.addresses import masked
from unfreeze.tasks.machine.environment import is_loopback, tracking_store

SECONDS_TO_ANSWER = 4.0
"""Timeout in seconds, also for a busy server."""


class NoAnswerError(UserError):
    """A server does not answer now, but may later."""


def addresses() -> dict[str, str]:
    """Addresses of ``Prefect`` (its API) and ``MLflow``, as far as known."""
    known = {"Prefect": os.environ.get("PREFECT_API_URL", ""), "MLflow": os.environ["MLFLOW_TRACKING_URI"]}
    return {name: address for name, address in known.items() if address.startswith("http")}


def responds(address: str) -> bool:
    """Whether a GET request succeeds."""
    try:
        return _get(address).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def require_prefect() -> None:
    """Raise `UserError` if there is no Prefect server at ``PREFECT_API_URL``."""
    api, end = os.environ.get("PREFECT_API_URL"), time.monotonic() + SECONDS_TO_ANSWER
    while api and not responds(f"{api.rstrip('/')}/health"):
        if time.monotonic() > end:
            raise UserError(
                f"Prefect at {masked(api)} does not answer; start its server, or correct PREFECT_API_URL, or unset it: "
                "a command then starts a server of its own. A run needs Prefect to begin"
            )
        time.sleep(1)


def require_mlflow() -> None:
    """Raise `UserError` if ``MLFLOW_TRACKING_URI`` is a server's address and nothing answers there."""
    uri, end = os.environ["MLFLOW_TRACKING_URI"], time.monotonic() + SECONDS_TO_ANSWER
    while uri.startswith("http"):
        try:
            _get(f"{uri.rstrip('/')}/health")
            return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if "SSL: " in str(error):
                return  # something answers; MLflow's own settings decide which certificates to trust
            if time.monotonic() > end:
                raise no_mlflow(error) from error
        time.sleep(1)


def no_mlflow(reason: object) -> NoAnswerError:
    """The error of a command that cannot reach MLflow."""
    in_a_line = " ".join(str(reason).split())
    return NoAnswerError(
        f"MLflow at {tracking_store()} does not answer ({in_a_line}); start it, or set MLFLOW_TRACKING_URI to one that "
        "runs"
    )


def _get(address: str) -> httpx.Response:
    # httpx uses a proxy for [::1] regardless of NO_PROXY.
    without_proxy = is_loopback(urlsplit(address).hostname or "")
    return httpx.get(address, timeout=SECONDS_TO_ANSWER, follow_redirects=True, trust_env=not without_proxy)
