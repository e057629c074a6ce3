"""Incidents: what went wrong once becomes an item of a suite, so that every later model is evaluated on it."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

from sluice.core.canonical import canonical_json
from sluice.core.files import atomic_write, try_lock
from sluice.core.manifest import file_hash
from sluice.data.privacy import mask
from sluice.model.evaluation.suites.suite import Suite, load_suite

Severity = Literal["low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")
SCORER = "incident"

_REFRESH_DAYS = 365
_NEW_SUITE = """\
# What went wrong once: `sluice incident add` appends a sample and pins the new file.
name: {name}
version: 0
source: incidents
licence: internal
created: {today}
refresh_by: {refresh_by}
data: {name}-0.jsonl
sha256: {empty}
scorers: [incident]
metadata: [severity]
max_tokens: 128
task: incident
"""


@dataclass(frozen=True)
class Incident:
    """One incident, as it is reported. Exactly one of `expected` and `forbidden` is given."""

    prompt: str
    reason: str
    """Why the answer was wrong, for the person who reads the lost items."""
    expected: str | None = None
    """Words that the answer must have."""
    forbidden: str | None = None
    """Words that the answer must not have."""
    severity: Severity = "medium"


def add_incident(path: Path, incident: Incident, today: date) -> str:
    """Append the incident to the suite at `path`, which is made if it is not there, and return the sample's id.

    Texts are masked first. The samples are written to a new file, and the suite's YAML that pins it is replaced last,
    so a killed process leaves the earlier suite. ValueError for an incomplete or repeated incident, a suite of another
    kind, and while another process appends.
    """
    row = _row(incident, today)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        if not path.is_file():
            suite, text, lines = None, _new_suite(path, today), b""
        else:
            suite = _incident_suite(path)
            text, lines = path.read_text(encoding="utf-8"), (path.parent / suite.settings.data).read_bytes()
            _refuse_repetition(suite, row)
        version = 1 + (int(suite.settings.version) if suite else 0)
        data = path.parent / f"{path.stem}-{version}.jsonl"
        with atomic_write(data, fsync=True) as partial:
            partial.write_bytes(lines + canonical_json(row) + b"\n")
        changed = {
            "version": version,
            "data": data.name,
            "sha256": file_hash(data),
            "refresh_by": today + timedelta(days=_REFRESH_DAYS),
        }
        for name, value in changed.items():
            text, count = re.subn(rf"(?m)^{name}:.*$", f"{name}: {value}", text)
            if count != 1:
                raise ValueError(f"{path} has {count} lines `{name}:` of its own: write each setting on one line")
        with atomic_write(path, fsync=True) as partial:
            partial.write_text(text, encoding="utf-8")
        if suite is not None:
            (path.parent / suite.settings.data).unlink(missing_ok=True)
    return str(row["id"])


def _row(incident: Incident, today: date) -> dict[str, Any]:
    if (incident.expected is None) == (incident.forbidden is None):
        raise ValueError("an incident says what is expected or what is forbidden: give one of the two")
    kind = "expected" if incident.expected is not None else "forbidden"
    texts = {
        "question": incident.prompt,
        kind: incident.expected or incident.forbidden or "",
        "reason": incident.reason,
    }
    if empty := [name for name, text in texts.items() if not text.strip()]:
        raise ValueError(f"{'prompt' if empty[0] == 'question' else empty[0]} is empty: write what happened")
    masked = {name: mask(text.strip())[0] for name, text in texts.items()}
    digest = hashlib.sha256(canonical_json([masked["question"], kind, masked[kind]])).hexdigest()[:8]
    about = {"id": f"incident-{today.isoformat()}-{digest}", "date": today.isoformat(), "severity": incident.severity}
    return {**about, **masked}


def _refuse_repetition(suite: Suite, row: Mapping[str, Any]) -> None:
    for sample in suite.samples:
        if all(sample.fields.get(name) == row.get(name) for name in ("question", "expected", "forbidden")):
            raise ValueError(f"this incident is in the suite already, as {sample.id}")


def _incident_suite(path: Path) -> Suite:
    suite = load_suite(path)
    settings = suite.settings
    if settings.scorers != [SCORER] or settings.prompt != "{question}" or not isinstance(settings.version, int):
        raise ValueError(
            f"{path} is no suite of incidents, whose only scorer is {SCORER}, whose prompt is {{question}} and whose "
            "version is a whole number: name another file, which is made if it is not there"
        )
    return suite


def _new_suite(path: Path, today: date) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*\.yaml", path.name):
        raise ValueError(f"{path}: a suite's file is named NAME.yaml, of a-z, 0-9, - and _")
    refresh_by = today + timedelta(days=_REFRESH_DAYS)
    return _NEW_SUITE.format(name=path.stem, today=today, refresh_by=refresh_by, empty="0" * 64)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor):
            raise ValueError(f"another process adds an incident in {folder}: try again when it has ended")
        yield
    finally:
        os.close(descriptor)
