"""The pinned documentation of conf/data: valid settings, permissive licences, one pin a package."""

from pathlib import Path

import yaml

from data.config import IngestConfig

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
