"""Print the make target that tests this commit: `test-all` where the matrix could be affected, else `test`.

The changes are those since the base commit: SLUICE_CI_BASE if set, else where HEAD left origin/main. On main itself
only SLUICE_CI_BASE, the commit before the push, tells which commits are new: without it, everything is tested.
"""

import os
import subprocess
import sys
from collections.abc import Iterable

MATRIX = (
    *("model/", "core/", "conf/", "requirements.lock", "pyproject.toml"),
    # The benchmarks' tests import these packages and read these pages.
    *("benchmarks/", "data/", "components/", "pipelines/", "docs/"),
    # The compiled graph in pods.
    *("infra/", "tests/lifecycle/", "tests/pods.py"),
    *("tests/model/", "tests/benchmarks/", "tests/conftest.py", "tests/kinds.py", "tests/pairs.py"),
)
"""Paths that the matrix guards, and the matrix itself."""


def target(changed: Iterable[str] | None) -> str:
    """Return the target for these changed paths, None if they are unknown."""
    affected = changed is None or any(path.startswith(MATRIX) for path in changed)
    return "test-all" if affected else "test"


def base_commit() -> str | None:
    """Return the commit that the checkout is compared with, or None if there is none."""
    if given := os.environ.get("SLUICE_CI_BASE"):
        return _git("rev-parse", "--verify", "--quiet", f"{given}^{{commit}}")
    left = _git("merge-base", "HEAD", "origin/main")
    if left and left != _git("rev-parse", "HEAD"):
        return left
    return None


def changed_since(base: str | None) -> list[str] | None:
    """Return the paths that differ from the base, those removed and those not yet committed among them."""
    found = base and _git("diff", "--name-only", "--no-renames", "-z", base)
    return None if found is None else [path for path in found.split("\0") if path]


def _git(*arguments: str) -> str | None:
    """Return what git prints, or None if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    base = base_commit()
    chosen = target(changed_since(base))
    sys.stderr.write(f"changes since {base or 'an unknown commit'}: make {chosen}\n")
    sys.stdout.write(chosen + "\n")
