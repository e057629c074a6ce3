"""Files of source code: chosen by a glob that names their suffix, read as they are, with their language."""

from functools import cache
from pathlib import PurePosixPath

_OTHER_NAMES = {".pl": "perl", ".pm": "perl", ".r": "r", ".sql": "sql"}
"""Languages of suffixes that Pygments gives to a rarer language first."""


def names_suffix(glob: str, path: str) -> bool:
    """Return whether the glob chooses the path by its name or suffix, such as `**/*.py` or `src/Makefile`."""
    last, name = glob.rpartition("/")[2], PurePosixPath(path).name
    suffix = last.rpartition(".")[2]
    return last == name or ("." in last and not any(character in suffix for character in "*?"))


def language_of(path: str) -> str | None:
    """Return the programming language of a file by its name, such as `python`; None for an unknown one."""
    pure = PurePosixPath(path)
    return _language(pure.suffix.lower() or pure.name)


@cache
def _language(suffix: str) -> str | None:
    from pygments.lexers import find_lexer_class_for_filename

    if suffix in _OTHER_NAMES:
        return _OTHER_NAMES[suffix]
    lexer = find_lexer_class_for_filename(f"file{suffix}" if suffix.startswith(".") else suffix)
    return lexer.aliases[0] if lexer is not None and lexer.aliases else None
