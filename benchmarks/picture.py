"""Pages as pictures, for docs/."""

import shutil
import subprocess
from pathlib import Path

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def photograph(page: Path, picture: Path, width: int, height: int) -> bool:
    """The top of a page, `width` x `height` pixels, as PNG; False where this machine has no browser."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return False
    # No sandbox of its own: it cannot have one as root in a container, and it opens a page that we have just written.
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"]
    subprocess.run([browser, *flags, f"--screenshot={picture}", page.resolve().as_uri()], check=True, timeout=120)
    return True
