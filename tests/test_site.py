"""The site of docs/: built as `make docs` does, opened from the disk in a browser."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.deployments.browser import CHROMIUM, FLAGS, needs_chromium
from tests.docs import PAGES, ROOT


@pytest.mark.slow
@needs_chromium
def test_the_site_builds_without_a_warning_is_searched_from_the_disk_and_loads_nothing_from_other_hosts() -> None:
    subprocess.run([sys.executable, "docs/reference.py", "build/reference"], cwd=ROOT, check=True)
    program = Path(sys.executable).with_name("zensical")
    subprocess.run([program, "build", "--clean", "--strict"], cwd=ROOT, check=True)
    pages = sorted((ROOT / "build" / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1  # without the README
    for path in pages[1:]:  # the first, 404.html, is for servers
        for link in re.findall(r'(?:href|src)="?([^"\s>#]+)', path.read_text()):
            assert ":" in link or (path.parent / link).exists(), f"{path.name}: {link}"
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in pages:
            page.goto(path.as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("checkpoint", delay=100)
        page.get_by_text(re.compile(r"\d+ results?")).wait_for()
        browser.close()
    assert len(asked) > len(pages)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
