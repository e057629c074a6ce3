"""Documentation of the packages installed in this environment: real text that needs no network."""

import ast
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import Any

from sluice.core.progress import Progress, no_progress
from sluice.data.document import Document, content_id
from sluice.data.sources.licence import licence_of

_BYTES_A_PACKAGE = 800_000
"""Limit of one package, or a few would be most of the corpus."""
_MAX_MODULE_BYTES = 1_000_000
_NOT_DOCUMENTATION = frozenset({"test", "tests", "testing", "_vendor", "vendor", "vendored"})
_TITLE, _SECTION = "#", "^"
"""Adornments that docstrings do not use for their own sections."""


def installed_documents(max_bytes: int, *, progress: Progress = no_progress) -> Iterator[Document]:
    """Yield long descriptions and docstrings, by package name, up to `max_bytes` of text."""
    # importlib.metadata parses the metadata again on every access, so it is read once.
    found = [(distribution.metadata.json, distribution) for distribution in distributions()]
    found.sort(key=lambda pair: (str(pair[0]["name"]).lower(), str(pair[0]["version"])))
    given = 0
    for metadata, distribution in found:
        of_package = 0
        for document in _documents(distribution, metadata):
            of_package += len(document.text.encode())
            yield document
            if of_package >= _BYTES_A_PACKAGE:
                break
        given += of_package
        progress(min(given, max_bytes), max_bytes, f"read {metadata['name']}")
        if given >= max_bytes:
            return


def _documents(distribution: Distribution, metadata: dict[str, Any]) -> Iterator[Document]:
    source = {"source": f"{metadata['name']}=={metadata['version']}", "licence": licence_of(metadata)}
    description = str(metadata.get("description") or "")
    if description.strip() not in ("", "UNKNOWN"):
        kind = str(metadata.get("description_content_type") or "text/x-rst").partition(";")[0].strip().lower()
        markup = {"text/markdown": "md", "text/plain": "txt"}.get(kind, "rst")
        yield _document(description, source | {"path": "description", "title": metadata["name"], "markup": markup})
    for file in sorted(distribution.files or [], key=str):
        path = PurePosixPath(str(file))
        if path.suffix != ".py" or not _NOT_DOCUMENTATION.isdisjoint(path.parts):
            continue
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        text = docstrings(Path(str(file.locate())), module)
        if text:
            yield _document(text, source | {"path": str(path), "title": module, "markup": "rst"})


def _document(text: str, metadata: dict[str, str]) -> Document:
    return Document(text=text, id=content_id(text), metadata=metadata)


def docstrings(path: Path, module: str) -> str:
    """Return the docstrings of a Python file as one reStructuredText document, or "" if it has none."""
    try:
        if path.stat().st_size > _MAX_MODULE_BYTES:
            return ""
        source = path.read_text(encoding="utf-8")
        if '"""' not in source and "'''" not in source:
            return ""
        tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return ""  # a template, Python 2, or a file that the package lists but did not install
    lead, members = ast.get_docstring(tree), list(_members(tree, ""))
    if not lead and not members:
        return ""
    parts = [_under(module, _TITLE, lead or ""), *(_under(name, _SECTION, text) for name, text in members)]
    return "\n\n".join(parts) + "\n"


def _members(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{child.name}"
            text = ast.get_docstring(child)
            if text and len(text) > 40:
                signature = "" if isinstance(child, ast.ClassDef) else f"({ast.unparse(child.args)})"
                yield f"{name}{signature}", text
            if isinstance(child, ast.ClassDef):
                yield from _members(child, f"{name}.")


def _under(title: str, adornment: str, text: str) -> str:
    # Stars and trailing underscores of a signature are text, not markup.
    shown = title.replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_")
    return f"{shown}\n{adornment * max(len(shown), 4)}\n\n{text}"
