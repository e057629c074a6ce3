"""pyproject.toml declares exactly what product files import, and the lock pins all of it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PACKAGES = ("core", "data", "model", "monitoring", "serving", "components", "pipelines")
OPTIONAL = {"flash_attn"}
"""Used where it is installed: a build for CUDA that no lock can pin for every machine."""


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(root: Path) -> dict[str, str]:
    """Third-party top-level modules -> a product file that imports them."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                found.update({module.partition(".")[0]: str(path.relative_to(root)) for module in modules})
    ours = {*sys.stdlib_module_names, *OPTIONAL, "sluice"}
    return {module: path for module, path in found.items() if module not in ours}


def test_every_import_of_a_product_file_is_declared_and_the_reverse(root: Path, project: dict) -> None:
    # Product files import the packages of the extra `eval` where its tasks are asked for.
    texts = [*project["dependencies"], *project["optional-dependencies"]["eval"]]
    declared = {normalized(Requirement(each).name) for each in texts}
    providers = packages_distributions()
    used = set()
    for module, path in imported(root).items():
        names = {normalized(name) for name in providers.get(module, [module])}
        assert names & declared, f"{path} imports {module}, which pyproject.toml does not declare"
        used |= names & declared
    assert declared - used == set(), "declared, and imported by no product file"


def test_lock_pins_every_declared_dependency_within_its_bounds(root: Path, project: dict) -> None:
    pins = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", (root / "requirements.lock").read_text(), re.MULTILINE)
    versions: dict[str, list[str]] = {}
    for name, version in pins:
        versions.setdefault(normalized(name), []).append(version)
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        requirement = Requirement(text)
        pinned = versions.get(normalized(requirement.name), [])
        assert pinned, f"requirements.lock does not pin {requirement.name}: run `make lock`"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in pinned), text


def test_each_declared_dependency_has_a_line_of_reason(root: Path, project: dict) -> None:
    reasons = (root / "docs" / "dependencies.md").read_text()
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        name = Requirement(text).name
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", reasons), (
            f"docs/dependencies.md does not say why {name} is here"
        )
