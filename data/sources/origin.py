"""The items that readers yield: documents with their origin, and rejects with their reason."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from sluice.data.config import UNSPECIFIED, Format, Markup
from sluice.data.document import OWN_METADATA, TURNS, Document, content_id, encodes
from sluice.data.sources.charset import UTF_8, Encoding, NotText, decode
from sluice.data.sources.limits import Limits, longer_than, too_large
from sluice.data.sources.row_fields import FieldChoice, as_turns, left_out_of_turns, render_turns, turns_of

_CHARSET = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset|<\?xml[^>]{0,100}?\sencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_HEAD_BYTES = 2048
"""Beginning of a page that must name its charset; the standard says 1024."""
_LONGEST_TITLE = 300
LEFT_OUT = "left_out"
"""Key, until a document is counted, of the names of its fields that are not kept."""
RAW: Markup = "raw"


@dataclass(frozen=True)
class Reject:
    """A file, line or row that is not a document."""

    source: str
    path: str
    reason: str
    line: int | None = None


@dataclass(frozen=True)
class Noted:
    """Something to count beside documents and rejects, such as a record that is no text by its type."""

    what: str


Read = Iterator[Document | Reject | Noted]


@dataclass(frozen=True)
class Origin:
    """The source of documents, and what is known about all of them."""

    source: str
    licence: str = UNSPECIFIED
    text_field: str = "text"
    markup: Markup | None = None
    """Markup of every file and row, whatever its suffix; files of unknown suffixes are read too."""
    encoding: str | None = None
    """Encoding of every file, where a byte order mark names no other."""
    format: Format | None = None
    """Format of every file, overriding the suffix."""
    fields: FieldChoice = field(default_factory=FieldChoice)
    default_markup: Markup | None = None
    """Markup of every file and row where `markup` is None."""

    def markup_or(self, shown: Markup) -> Markup:
        """Return the markup of the settings, or else the one that a file or row shows."""
        return self.markup or self.default_markup or shown

    def document(self, text: str, path: str, markup: str, fields: Mapping[str, Any] | None = None) -> Document:
        metadata: dict[str, Any] = {
            "source": self.source,
            "path": path,
            "licence": self.licence,
            "title": PurePosixPath(path).stem,
            "markup": markup,
        }
        if fields:
            metadata["fields"] = dict(fields)
        return Document(text=text, id=content_id(text), metadata=metadata)

    def reject(self, path: str, reason: str, line: int | None = None) -> Reject:
        return Reject(self.source, path, reason, line)

    def of_file(
        self,
        content: bytes,
        path: str,
        markup: str,
        *,
        declared: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Document | Reject:
        """Make one document of a whole file, in the encoding that it is `declared` in unless the settings name one."""
        try:
            text, encoding = decode(content, self.encoding, declared)
        except NotText as why:
            return self.reject(path, str(why))
        if not text.strip():
            return self.reject(path, "empty")
        return self.document(text, path, markup, {**encoding.evidence, **(fields or {})})

    def of_page(
        self,
        content: bytes,
        path: str,
        charset: str | None = None,
        fields: Mapping[str, Any] | None = None,
        markup: Markup = "html",
    ) -> Document | Reject:
        """Make one document of an HTML page, in the `charset` it was sent with, or else in the one it declares."""
        named = _CHARSET.search(content[:_HEAD_BYTES])
        charset = charset or (named[1].decode() if named else None)
        return self.of_file(content, path, markup, declared=charset, fields=fields)

    def of_fields(
        self, row: Mapping[str, Any], path: str, number: int, limits: Limits, encoding: Encoding = UTF_8
    ) -> Document | Reject:
        """Make a document of a row, whose text is in `text_field`, or else in its turns."""
        text, turns = row.get(self.text_field), None
        left_out: list[str] = []
        if isinstance(text, bytes):
            try:
                text, encoding = decode(text, self.encoding)
            except NotText as why:
                return self.reject(path, str(why), number)
        if not isinstance(text, str):
            named = as_turns(text)
            found = (self.text_field, named) if named else (turns_of(row) if text is None else None)
            if found is None:
                return self.reject(path, no_string(self.text_field), number)
            field_name, turns = found
            left_out = left_out_of_turns(field_name, row[field_name])
            row = {name: value for name, value in row.items() if name != field_name}
            text = render_turns(turns)
        if not encodes(text):
            return self.reject(path, "not UTF-8 text", number)
        first = _first_origin(row)
        if first is None:
            fields = self.fields.kept(row, self.text_field)
        else:
            # What an earlier build kept is kept, nested or not.
            inner = {name: value for name, value in row["metadata"].items() if name not in OWN_METADATA}
            choice = FieldChoice(tuple(inner)) if self.fields.names is None else self.fields
            fields = choice.kept(inner, self.text_field)
        if turns is not None and self.fields.names is None:
            fields.values[TURNS] = turns
        fields.values |= encoding.evidence
        made = self.of_row(text, path, number, limits, first)
        if isinstance(made, Document):
            title = fields.values.get("title")
            if first is None and isinstance(title, str) and 0 < len(title.strip()) <= _LONGEST_TITLE:
                made.metadata["title"] = title.strip()
            if fields.values:
                made.metadata["fields"] = fields.values
            if left_out := [*fields.left_out, *left_out]:
                made.metadata[LEFT_OUT] = left_out
        return made

    def of_row(
        self, text: str, path: str, number: int, limits: Limits, first: Mapping[str, str] | None = None
    ) -> Document | Reject:
        """Make a document of a line or row of a file; numbers begin at 1. `first` is its original source, path, licence
        and title, if it comes from an earlier build.
        """
        if not text.strip():
            return self.reject(path, "empty", number)
        if longer_than(text, limits.document_bytes):
            return self.reject(path, too_large(limits.document_bytes), number)
        document = self.document(text, f"{path}:{number}", self.markup_or(RAW))
        if first is not None:
            # A licence in the settings overrides the original one.
            document.metadata |= {**first, "licence": first["licence"] if self.licence == UNSPECIFIED else self.licence}
        return document


def _first_origin(row: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the source, path, licence and title of a clean document of an earlier build; None for other rows."""
    metadata = row.get("metadata")
    if "id" not in row or not isinstance(metadata, dict):
        return None
    names = ("source", "path", "licence", "title")
    known = {name: value for name in names if isinstance(value := metadata.get(name), str) and encodes(value)}
    return known if len(known) == len(names) else None


def no_string(field_name: str) -> str:
    return f"no string under `{field_name}`: set data.text_field"
