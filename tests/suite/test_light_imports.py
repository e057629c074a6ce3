"""Modules that must start fast, or run where little is installed, load no heavy library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROWS = {
    "`sluice --help`": (
        "from sluice.pipelines.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0",
        ["dvc", "kfp", "mlflow", "numpy", "pydantic", "ray", "rich", "torch", "yaml"],
    ),
    "`sluice COMMAND --help`": (
        "from sluice.pipelines.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n    try:\n        main([command, '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0",
        ["dvc", "kfp", "mlflow", "omegaconf", "ray", "torch"],
    ),
    "the gateway's traffic writer": (
        "import sluice.core.check, sluice.monitoring.sequential, sluice.monitoring.traffic.writer",
        ["evidently", "numpy", "pandas", "pyarrow"],
    ),
    "the gateway": (
        "import sluice.serving.gateway",
        ["mlflow", "pandas", "pyarrow", "ray", "sqlalchemy", "torch"],
    ),
    "registry, ledger, release and rollout": (
        "import sluice.serving.ledger, sluice.serving.releases, sluice.serving.rollout\n"
        "from sluice.serving.registry import Registry\nRegistry('sqlite:///x.db', 'a')",
        ["evidently", "mlflow", "ray", "torch"],
    ),
    "the gate's decision and its settings": (
        "import sluice.model.evaluation.gate",
        ["datatrove", "jinja2", "pandas", "scipy", "tokenizers", "torch"],
    ),
    "judging an evaluation, and its verdict": (
        "import sluice.pipelines.commands.gate, sluice.model.evaluation.judgement, sluice.model.evaluation.lost_items",
        ["datatrove", "jinja2", "mlflow", "pandas", "ray", "scipy", "tokenizers", "torch"],
    ),
    "suites and models under evaluation": (
        "import sluice.model.evaluation.lm_eval, sluice.model.evaluation.harness\n"
        "from sluice.pipelines.commands import evaluate",
        ["lm_eval", "evaluate", "datasets", "transformers"],
    ),
    "a heavy one, so that the check can fail": ("import json.tool", ["argparse"]),
}
"""By name: what runs in a fresh interpreter, and the modules that it must not have loaded."""

RUNNER = """
import json, os, sys
for name, (code, forbidden) in json.loads(sys.argv[1]).items():
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            exec(code, {})
            loaded = [module for module in forbidden if module in sys.modules]
        except BaseException as error:
            loaded = [repr(error)]
        os.write(3, (json.dumps([name, loaded]) + chr(10)).encode())
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def loaded(root: Path) -> dict[str, list[str]]:
    """Forbidden modules that each row loaded: one interpreter, which forks for every row."""
    program = f"import os; os.dup2(1, 3)\n{RUNNER}"
    command = [sys.executable, "-c", program, json.dumps(ROWS)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=True)
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("name", ROWS)
def test_no_heavy_library_is_loaded(loaded: dict[str, list[str]], name: str) -> None:
    assert loaded[name] == (["argparse"] if "can fail" in name else [])
