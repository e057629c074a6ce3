"""Screenshots of a running server's page in the machine's Chromium: `python -m benchmarks.page`, in its workspace.

Writes page-light.png, page-dark.png, page-narrow.png and page-dialog.png into docs/.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from sluice.pipelines.compose import find_workspace
from sluice.serving.client import find_server

NAMES = ("chromium", "chromium-browser", "google-chrome")
DOCS = Path(__file__).parent.parent / "docs"
CHART_S = 15.0
"""Time for the chart of latencies to show a line."""


def find_chromium() -> str | None:
    """Return the path of the machine's Chromium."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start Chromium without a window. Raises ValueError where the machine has none."""
    found = find_chromium()
    if found is None:
        raise ValueError(f"none of {', '.join(NAMES)} is on PATH: apt install chromium")
    with sync_playwright() as driver:
        # Its own sandbox works neither in most containers nor for root; it opens pages of ours alone.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, url: str, key: str) -> None:
    """Open the page at `url` with a key, and wait for its first live update."""
    page.goto(url)
    page.get_by_label("Key").fill(key)
    with page.expect_request("**/admin/events"):
        page.keyboard.press("Enter")
    page.get_by_role("heading", name="Live traffic").wait_for()


def shoot(url: str, key: str, out: Path, wait_s: float = CHART_S) -> list[Path]:
    """Write the screenshots into `out` and return their paths."""
    schemes: list[tuple[str, Literal["light", "dark"], int]] = [
        ("light", "light", 1280),
        ("dark", "dark", 1280),
        ("narrow", "light", 390),
    ]
    written = []
    with open_chromium() as browser:
        context = browser.new_context()
        page = context.new_page()
        log_in(page, url, key)
        page.wait_for_timeout(1e3 * wait_s)
        for name, scheme, width in schemes:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            written.append(out / f"page-{name}.png")
            page.screenshot(path=written[-1], full_page=True)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.locator("#actions button:enabled").nth(1).click()
        written.append(out / "page-dialog.png")
        page.screenshot(path=written[-1])
        context.close()
    return written


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures, docs/ by default")
    arguments = parser.parse_args()
    try:
        workspace = find_workspace()
        client = find_server(workspace.state)
        if client is None:
            raise ValueError("no server of this workspace answers: start one by `sluice serve`")
        for path in shoot(client.url, workspace.api_key(), arguments.out):
            print(path)
    except ValueError as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
