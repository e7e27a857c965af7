"""A real browser: where it is, how it is started, and what it must not do."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
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


OUTPUT = Path(__file__).parents[2] / "test-output"
"""Where screenshots are kept to be looked at."""
VIEWS = ((400, "light"), (1400, "light"), (1400, "dark"))
"""Widths in pixels and colour schemes that a page of our own is looked at in."""


def views_without_a_network(path: Path, name: str) -> "Iterator[Page]":
    """Open a file in each of `VIEWS`, keep a screenshot, and require that nothing is missing, cut off or fetched."""
    from playwright.sync_api import sync_playwright

    OUTPUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width, colours in VIEWS:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=colours, offline=True, locale="en"
            )
            page, said, asked = context.new_page(), list[str](), list[str]()
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            page.wait_for_load_state("load")
            page.screenshot(path=OUTPUT / f"{name}-{width}-{colours}.png", full_page=True)
            assert said == []
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") == width
            broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
            assert page.evaluate(broken) == 0
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background))) > 400) == (colours == "light")
            yield page
            context.close()
        browser.close()


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
