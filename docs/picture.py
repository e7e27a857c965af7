"""The picture of a report that the README begins with: ``python docs/picture.py report.html docs/report.png``.

Needs Playwright and a Chromium (Debian: ``apt-get install chromium``); the run behind docs/report.png is
``unfreeze train cats_dogs`` on 1,100 photos with default settings.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 1500


def main(report: str, out: str) -> None:
    """Photograph the top of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        image = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    image.convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
