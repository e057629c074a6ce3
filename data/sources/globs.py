"""Globs for paths with `/`: `**/` matches any folders or none; `*`, `?` and `[a-z]` match within a name."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_PIECE = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])")
_SPECIAL = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_glob(path: str) -> bool:
    return _PIECE.search(path) is not None


def any_of(globs: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern that fully matches the paths of any of the globs; without globs, none."""
    return re.compile("|".join(map(_translate, globs)) or r"(?!)", re.DOTALL)


def at_or_below(glob: str) -> re.Pattern[str]:
    """Return a pattern that fully matches the paths of the glob, and those below a folder that it matches."""
    return re.compile(f"{_translate(glob)}(?:/.*)?", re.DOTALL)


class Choice(NamedTuple):
    """Selects paths: those of `include`, or all if it is empty, without those of `exclude`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __call__(self, path: str) -> bool:
        wanted = not self.include or any_of(self.include).fullmatch(path) is not None
        return wanted and any_of(self.exclude).fullmatch(path) is None


def _translate(glob: str) -> str:
    translated = []
    for piece in _PIECE.split(glob):
        if piece in _SPECIAL:
            translated.append(_SPECIAL[piece])
        elif _PIECE.fullmatch(piece):
            negated, names = piece[1] == "!", piece[1:-1].removeprefix("!")
            escaped = names.replace("\\", "\\\\").replace("^", "\\^").replace("[", "\\[")
            translated.append(f"[{'^/' if negated else ''}{escaped}]")
        else:
            translated.append(re.escape(piece))
    return "".join(translated)
