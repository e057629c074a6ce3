"""The pinned documentation of conf/data: valid settings, permissive licences, one pin a package."""

from pathlib import Path

import yaml

from sluice.data.config import IngestConfig
from sluice.model.config import EvaluateConfig

PERMISSIVE = {"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "Apache-2.0 OR BSD-3-Clause"}
PATH = Path(__file__).parents[2] / "conf" / "data" / "documentation.yaml"


def test_the_pinned_documentation_is_valid_and_permissively_licensed():
    text = PATH.read_text(encoding="utf-8")
    assert text.startswith("# @package data\n")
    config = IngestConfig.model_validate(yaml.safe_load(text))
    assert config.given == []
    assert {package.licence for package in config.packages} <= PERMISSIVE
    names = [package.name for package in config.packages]
    assert len(names) == len(set(names)) >= 10


def test_documents_are_searched_for_every_evaluation_set_in_use(root: Path):
    held = yaml.safe_load((root / "conf" / "config.yaml").read_text(encoding="utf-8"))["refine"]["evaluation_sets"]
    used = {EvaluateConfig().golden_prompts}
    # A rubric tells a judge what to look for; it has no items.
    rubrics = root / "model" / "evaluation" / "judging" / "rubrics"
    found = [path for path in (root / "model" / "evaluation").rglob("*") if path.suffix in {".yaml", ".jsonl"}]
    assert not [path for path in found if path.parent != rubrics]
    assert {each["path"] for each in held} == used
