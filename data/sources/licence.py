"""Read the licence that a Python package declares, installed or as a source distribution."""

import tomllib
from collections.abc import Mapping
from email.parser import HeaderParser
from typing import Any

from sluice.data.config import UNSPECIFIED

METADATA = ("PKG-INFO", "pyproject.toml")
"""Files that declare the licence, the more reliable first: the build backend's output, and its input."""

_LONGEST = 80
"""Characters; a longer licence field contains the licence's text, not its name."""
_NO_NAME = frozenset({"", "UNKNOWN"})
"""Old tools wrote UNKNOWN where nothing was declared."""


def licence_of(metadata: Mapping[str, Any]) -> str:
    """Return the SPDX expression of core metadata, else its licence field or classifier, else `unspecified`.

    Keys are those of `importlib.metadata`'s JSON: `license_expression`, `license`, `classifier`.
    """
    for field in ("license_expression", "license"):
        named = str(metadata.get(field) or "").strip()
        if named not in _NO_NAME and len(named) <= _LONGEST:
            return named
    listed = (str(each) for each in metadata.get("classifier") or [])
    named_last = (each.split(" :: ")[-1].strip() for each in listed if each.startswith("License ::"))
    # `License :: OSI Approved` alone is none.
    return next((each for each in named_last if each != "OSI Approved"), UNSPECIFIED)


def distribution_licence(files: Mapping[str, bytes]) -> str:
    """Return the licence that a source distribution's METADATA files declare; `unspecified` without one."""
    found = (licence_of(read(files[name])) for name, read in _READERS.items() if name in files)
    return next((licence for licence in found if licence != UNSPECIFIED), UNSPECIFIED)


def _of_pkg_info(content: bytes) -> dict[str, Any]:
    headers = HeaderParser().parsestr(content.decode("utf-8", "replace"), headersonly=True)
    return {
        "license_expression": headers.get("License-Expression"),
        "license": headers.get("License"),
        "classifier": headers.get_all("Classifier"),
    }


def _of_pyproject(content: bytes) -> dict[str, Any]:
    """Return the same keys from `[project]`; none from a file that does not follow PEP 621."""
    try:
        project = tomllib.loads(content.decode("utf-8")).get("project")
    except ValueError:
        return {}
    if not isinstance(project, dict):
        return {}
    licence, classifiers = project.get("license"), project.get("classifiers")
    text = licence.get("text") if isinstance(licence, dict) else licence
    return {"license": text, "classifier": classifiers if isinstance(classifiers, list) else []}


_READERS = dict(zip(METADATA, (_of_pkg_info, _of_pyproject), strict=True))
