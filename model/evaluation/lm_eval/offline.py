"""lm-eval without a network: data sets from a folder laid out as the hub's names, and no metric of the hub."""

import io
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch


def task_file(name: str) -> Path:
    """The file that defines a stock task. ValueError for an unknown one, and where lm-eval is not installed.

    Found by its text: reading all 14,000 files as YAML takes lm-eval 8 s.
    """
    root = tasks_folder()
    line = re.compile(rb"^task:\s*[\"']?" + re.escape(name.encode()) + rb"[\"']?\s*$", re.MULTILINE)
    # A task's name nearly always begins with its folder's, so those come first.
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in sorted(folders, key=lambda path: (not name.startswith(path.name.split("_")[0]), path.name)):
        for path in sorted(folder.rglob("*.yaml")):
            if line.search(path.read_bytes()):
                return path
    raise ValueError(f"lm-eval has no task {name!r}: name one of its tasks (not a group), such as arc_easy")


def tasks_folder() -> Path:
    """lm-eval's folder of stock tasks. Raises ValueError where lm-eval is not installed."""
    try:
        import lm_eval
    except ImportError:
        raise ValueError("lm-eval is not installed: install sluice with the extra `eval`") from None
    return Path(lm_eval.__file__).parent / "tasks"


@contextmanager
def offline(task: str, data_dir: Path) -> Iterator[None]:
    """Read data sets from `data_dir` alone, refuse metrics that come from the hub, and keep lm-eval quiet.

    Raises ValueError naming the data set or the metric that is missing, also where lm-eval passes over it.
    """
    import datasets
    import evaluate

    load_dataset, refused = datasets.load_dataset, []

    def local(path: str, name: str | None = None, **options: Any) -> Any:
        folder = data_dir / path
        if not folder.is_dir():
            raise ValueError(
                f"lm-eval:{task} reads the data set {path}: put it into {folder}, with a README.md that names its "
                "configs and JSONL beside it"
            )
        options.pop("trust_remote_code", None)
        return load_dataset(str(folder), name, **{**options, "cache_dir": cache})

    def refuse(metric: str, *arguments: Any, **options: Any) -> Any:
        refused.append(metric)
        raise ValueError(metric)

    logger = logging.getLogger("lm_eval")
    level = logger.level
    noise = io.StringIO()
    with (
        tempfile.TemporaryDirectory(prefix="sluice-lm-eval-") as cache,
        patch.object(datasets, "load_dataset", local),
        patch.object(datasets.config, "HF_HUB_OFFLINE", True),
        patch.object(evaluate, "load", refuse),
        redirect_stderr(noise),
        redirect_stdout(noise),
    ):
        logger.setLevel(logging.CRITICAL)
        bars = datasets.utils.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            yield
        except Exception as error:
            if not refused:
                raise
            raise ValueError(_without_hub(task, refused[0])) from error
        finally:
            logger.setLevel(level)
            if not bars:
                datasets.enable_progress_bars()
    if refused:
        raise ValueError(_without_hub(task, refused[0]))


def _without_hub(task: str, metric: str) -> str:
    return f"lm-eval:{task} needs the metric {metric} of evaluate.load, which is code from the hub: choose another task"
