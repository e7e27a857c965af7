"""A real browser: where it is, how it is started, and what it must not do."""

import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.deployments.service import Up

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    *("--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic"),
]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def needs_chromium(test: object) -> object:
    """Mark a test that drives a browser; it is skipped where none is installed."""
    reason = "no Chromium is installed (Debian: apt-get install chromium)"
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test))


def foreign_requests(page: "Page") -> list[str]:
    """Addresses that the page asks and that are not this machine's; the list grows as it does."""
    found: list[str] = []

    def look(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOOPBACK:
            found.append(address)

    page.on("request", lambda request: look(request.url))
    page.on("websocket", lambda socket: look(socket.url))
    return found


def sign_in(page: "Page", up: Up) -> None:
    """Give the Prefect page what it asks for, as `unfreeze up` printed it."""
    line = next(line for line in up.printed.splitlines() if "the page asks once for" in line)
    page.goto(up.api.removesuffix("/api"))
    page.get_by_placeholder("admin:pass").fill(line.split()[-1])
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard")
