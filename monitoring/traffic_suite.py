"""A suite drawn from traffic: what users really ask, masked, for people or a judge to rate."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import yaml

from sluice.core.files import atomic_write
from sluice.data.privacy import mask
from sluice.model.evaluation.suites.suite import NAME_PATTERN
from sluice.monitoring.traffic.files import scan_traffic

_REFRESH_DAYS = 90
_SOURCE = "traffic"
"""Source in the YAML file of a suite that was drawn here."""
_ANSWERED = 200  # HTTP status
_SUITE = """\
# Prompts of real traffic, masked. No scorer knows their answers, so the suite is inconclusive until people rate them.
name: {name}
version: "{version}"
source: {source}
licence: internal
created: {today}
refresh_by: {refresh_by}
data: {data}
sha256: {sha256}
scorers: [reviewed]
max_tokens: 128
task: traffic
"""


@dataclass(frozen=True)
class TrafficSample:
    """Outcome of a draw."""

    samples: int
    distinct: int
    """Prompts among which they were drawn."""
    records: int
    unreadable: tuple[str, ...]
    """Files of the traffic that could not be read."""


def _is_drawn(path: Path) -> bool:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.get("source") == _SOURCE


def sample_traffic(traffic: Path, out: Path, *, most: int, seed: int, today: date) -> TrafficSample:
    """Draw at most `most` prompts of the live traffic in `traffic` into the suite `out` (YAML) and a JSONL beside it.

    Every prompt counts once, however often it was sent: records name no user, and a repeated prompt is one that a
    single client may send all day. Prompts are masked again, with what masking knows today. Which are drawn depends on
    their text and `seed` alone, so more traffic changes as little of the suite as it can. ValueError without a prompt,
    and where `out` is a file that was not drawn from traffic.
    """
    if out.suffix not in (".yaml", ".yml") or not re.fullmatch(NAME_PATTERN, out.stem):
        raise ValueError(f"{out}: name a .yaml file by small letters, digits, - and _; the suite has its name")
    if out.exists() and not _is_drawn(out):
        raise ValueError(f"{out} is there and was not drawn from traffic: name another file by --out, or remove it")
    frame, unreadable = scan_traffic(traffic, columns=("source", "status", "prompt_text"))
    live = frame[(frame["source"] == "live") & (frame["status"] == _ANSWERED)]
    prompts = {masked for text in live["prompt_text"] if (masked := mask(text)[0].strip())}
    if not prompts:
        raise ValueError(
            f"{traffic}: no prompt among {len(live)} answered live requests; name the folder of a server's traffic"
        )
    drawn = sorted(prompts, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())[:most]
    rows = [{"id": hashlib.sha256(text.encode()).hexdigest()[:16], "question": text} for text in drawn]
    content = "".join(f"{json.dumps(row, ensure_ascii=False, sort_keys=True)}\n" for row in rows).encode()
    digest = hashlib.sha256(content).hexdigest()
    # A new name for new samples: the YAML file that pins them is replaced last, and always fits what it names.
    data = out.with_name(f"{out.stem}-{digest[:8]}.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(data) as partial:
        partial.write_bytes(content)
    text = _SUITE.format(
        name=out.stem,
        source=_SOURCE,
        version=digest[:8],
        today=today,
        refresh_by=today + timedelta(days=_REFRESH_DAYS),
        data=data.name,
        sha256=digest,
    )
    with atomic_write(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return TrafficSample(len(rows), len(prompts), len(frame), tuple(unreadable))
