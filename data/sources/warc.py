"""Web archives (ISO 28500): the HTML pages among the responses, each with its URL."""

import re
from pathlib import Path
from typing import Any

from sluice.data.config import without_secrets
from sluice.data.document import Document
from sluice.data.sources.compression import Damaged, open_stream
from sluice.data.sources.origin import Limits, Origin, Read, Reject, too_large

_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_CHUNK_BYTES = 1 << 16


def read_warc(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read a document from every response that is a page; other responses are rejects, other records are skipped."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    pages = 0
    try:
        with open_stream(path, limits, packing) as stream:
            for record in ArchiveIterator(stream):
                if record.rec_type == "response":
                    pages += 1
                    yield _of_response(record, shown, origin, limits)
    except (ArchiveLoadFailed, EOFError) as error:
        raise Damaged("damaged WARC") from error
    if not pages:
        yield origin.reject(shown, "no response record")


def _of_response(record: Any, shown: str, origin: Origin, limits: Limits) -> Document | Reject:
    path = f"{shown}:{without_secrets(record.rec_headers.get_header('WARC-Target-URI') or 'no address')}"
    http = record.http_headers
    kind, _, parameters = (http.get_header("Content-Type") or "" if http else "").partition(";")
    if http is None or kind.strip().lower() not in _PAGES:
        return origin.reject(path, "not a page of HTML")
    if http.get_statuscode() != "200":
        return origin.reject(path, f"HTTP status {http.get_statuscode()}")
    stream, content = record.content_stream(), bytearray()
    # Decompressed, up to one chunk beyond the limit.
    while len(content) <= limits.document_bytes and (chunk := stream.read(_CHUNK_BYTES)):
        content += chunk
    if len(content) > limits.document_bytes:
        return origin.reject(path, too_large(limits.document_bytes))
    if record.raw_stream.limit:
        return origin.reject(path, "ends early")
    declared = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
    return origin.of_page(bytes(content), path, declared[1] if declared else None)
