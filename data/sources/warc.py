"""Web archives (ISO 28500): pages and plain texts among the records, each with its URL and date."""

import re
from pathlib import Path
from typing import Any

from sluice.data.config import Markup, without_secrets
from sluice.data.document import Document
from sluice.data.sources.compression import Damaged, open_stream
from sluice.data.sources.http_body import read_body
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import RAW, Noted, Origin, Read, Reject

_MARKUPS: dict[str, Markup] = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": RAW}
_BLOCK_BYTES = 1 << 16
_CONTENT = frozenset({"response", "resource", "conversion"})
"""Types of records whose block is content; the others describe the crawl."""


def read_warc(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read a document from every response, resource or conversion (WET) that is a page or a plain text.

    Other responses are rejects; records of other types are counted by their type.
    """
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    found = 0
    try:
        with open_stream(path, limits, packing) as stream:
            # Versions other than HTTP/1 occur in the status lines of responses.
            for record in ArchiveIterator(stream, verify_http=False):
                if record.rec_type in _CONTENT:
                    found += 1
                    if cut := record.rec_headers.get_header("WARC-Truncated"):
                        yield Noted(f"WARC record truncated by its crawler ({cut[:20]})")
                    yield _of_record(record, shown, origin, limits)
                else:
                    yield Noted(f"WARC {(record.rec_type or 'unnamed')[:20]} record passed over")
    except (ArchiveLoadFailed, EOFError) as error:
        raise Damaged("damaged WARC") from error
    if not found:
        yield origin.reject(shown, "no response record")


def _of_record(record: Any, shown: str, origin: Origin, limits: Limits) -> Document | Reject:
    headers, http = record.rec_headers, record.http_headers
    address = without_secrets(headers.get_header("WARC-Target-URI") or "")
    path = f"{shown}:{address or 'no address'}"
    content_type = (http.get_header("Content-Type") if http else record.content_type) or ""
    kind, _, parameters = content_type.partition(";")
    if not kind and record.rec_type == "conversion":
        kind = "text/plain"
    markup = _MARKUPS.get(kind.strip().lower())
    if markup is None or (record.rec_type == "response" and http is None):
        return origin.reject(path, "not a page of HTML or a plain text")
    if http is not None and http.get_statuscode() != "200":
        return origin.reject(path, f"HTTP status {http.get_statuscode()}")
    try:
        content = read_body(record.raw_stream, http if http is not None else _NoHeaders(), limits.document_bytes)
        damage = None
    except Damaged as error:
        content, damage = b"", str(error)
    # What follows the last chunk. A limit that is left over means that the file ends within the record.
    while record.raw_stream.read(_BLOCK_BYTES):
        pass
    if getattr(record.raw_stream, "limit", 0):
        damage = "ends early"
    if damage is not None:
        return origin.reject(path, damage)
    known = {
        "url": address,
        "date": headers.get_header("WARC-Date"),
        "truncated": headers.get_header("WARC-Truncated"),
        "identified_language": headers.get_header("WARC-Identified-Content-Language"),
    }
    fields = {name: value for name, value in known.items() if value}
    declared = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
    charset = declared[1] if declared else None
    chosen = origin.markup_or(markup)
    if "html" in {chosen, markup}:
        return origin.of_page(content, path, charset, fields, chosen)
    return origin.of_file(content, path, chosen, declared=charset, fields=fields)


class _NoHeaders:
    """Headers of a record without HTTP."""

    def get_header(self, _name: str) -> None:
        return None
