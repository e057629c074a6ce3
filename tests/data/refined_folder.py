"""A refined folder written by hand: about 270 help texts with every kind of decision, in the files' own schemas."""

import hashlib
import json
import pydoc_data.topics
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sluice.data.config import RefineConfig
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.document import content_id
from sluice.data.quality.rules import LANGUAGE, RULES, breaches
from sluice.data.refining.tables import DECISION, score_schema, write_rows

SOURCES = {"python==3.11": "PSF-2.0", "handbook==2.0": "MIT", "https://example.org/docs": "CC-BY-4.0"}
FOREIGN = {
    "de": "Der Dienst liest die Datei, prüft jede Zeile und schreibt das Ergebnis in den Ordner mit der Nummer {}. ",
    "fr": "Le service lit le fichier, vérifie chaque ligne et écrit le résultat dans le dossier numéro {}. ",
    "ja": "サービスはファイルを読み、各行を確認し、結果を番号 {} のフォルダに書き込みます。 ",
}
SHARED = SharedSpan(first_word=20, last_word=34, set="quiz", ngram=13)
"""Spans of every contaminated document."""
SCORES = sorted({rule.score for rule in RULES if rule not in (RULES[0], LANGUAGE)})


def texts() -> list[tuple[str, str]]:
    """(language, text) of about 200 documents."""
    found = []
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        parts = text.split("\n\n")
        half = max(len(parts) // 2, 1)
        found += [("en", "\n\n".join(part)) for part in (parts[:half], parts[half:]) if part]
        found.append(("en", f"See the help topic {topic}."))
    for language, sentence in FOREIGN.items():
        found += [(language, "".join(sentence.format(7 * n + k) for k in range(5 + 4 * n))) for n in range(8)]
    found.insert(0, ("en", "# Notes\n\nWrite to <EMAIL>. <script>alert('text')</script> & more."))
    return list(dict.fromkeys(found))


def scores_of(text: str, config: RefineConfig, generator: random.Random) -> dict[str, float]:
    """A score for every rule: most pass."""
    found: dict[str, float] = {}
    for rule in RULES[1:]:
        if rule is LANGUAGE or rule.score in found:
            continue
        bound = rule.bound(config) if rule.bound(config) is not None else 0.5
        passes = generator.random() > 0.012
        if rule.is_minimum:
            value = bound * (1 + generator.expovariate(1.5) if passes else generator.random())
            found[rule.score] = min(value, 1.0) if bound < 1 else value
        else:
            found[rule.score] = bound * (generator.betavariate(1.2, 5) if passes else 1 + generator.random())
    return found | {"words": float(len(text.split())), "language_probability": 0.99, "placeholder_texts": 0.0}


def write_refined(
    folder: Path,
    config: RefineConfig | None = None,
    *,
    edit: Callable[[int, str], str] = lambda place, text: text,
    leave_out: frozenset[int] = frozenset(),
    parts: int = 2,
) -> Path:
    """Write the evidence of a run; `edit` changes texts and `leave_out` omits documents by their place."""
    config = config or RefineConfig()
    scored, decided = [], []
    for place, (language, text) in enumerate(texts()):
        if place in leave_out:
            continue
        generator = random.Random(place)
        text = edit(place, text)
        scores = scores_of(text, config, generator)
        source = list(SOURCES)[min(place % 5, 2)]
        identity = {
            "id": content_id(text),
            "raw_id": content_id(f"raw {text}"),
            "source": source,
            "path": f"topics/{place:03d}.rst",
            "licence": SOURCES[source],
            "title": f"Topic {place}",
            "language": language,
            "characters": len(text),
            "bytes": len(text.encode()),
        }
        scored.append({**identity, "text": text, "fields": "{}", "contamination": "[]", **scores})
        columns = {name: [value] for name, value in (scores | {"characters": len(text)}).items()}
        breach = breaches(columns, [language], config).first[0]
        decided.append(_decision(identity, breach, place, generator))
        if decided[-1]["rule"] == "contaminated":
            scored[-1]["contamination"] = json.dumps([asdict(SHARED)])
        if place % 23 == 4:
            copy = {**identity, "path": f"copies/{place:03d}.rst"}
            scored.append({**scored[-1], **copy})
            again = {"kept": False, "rule": "exact_duplicate", "final_id": None, "comparison": None}
            decided.append({**decided[-1], **copy, **again, "twin": copy["id"], "jaccard": 1.0})
    _twins(decided)
    _write(folder, scored, decided, config, parts)
    return folder


def _decision(
    identity: dict[str, Any], breach: tuple[str, str] | None, place: int, generator: random.Random
) -> dict[str, Any]:
    rule, comparison = breach or (None, None)
    if rule is None and place % 67 == 3:
        rule, comparison = "contaminated", "shares 14 words with quiz"
    if rule is None and place % 11 == 5:
        rule, comparison = "near_duplicate", None
    return {
        **identity,
        "final_id": None if rule else identity["id"],
        "kept": rule is None,
        "rule": rule,
        "comparison": comparison,
        "twin": None,
        "jaccard": 0.7 + 0.3 * generator.random() if rule == "near_duplicate" else None,
        "cut_characters": 0,
    }


def _twins(decided: list[dict[str, Any]]) -> None:
    kept = [row["id"] for row in decided if row["kept"]]
    for row in decided:
        if row["rule"] == "near_duplicate":
            row["twin"] = kept[int(row["id"][:2], 16) % 7]


def _tally(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [row for row in rows if row["kept"]]
    return {
        "documents_in": len(rows),
        "bytes_in": sum(row["bytes"] for row in rows) + 40 * len(rows),
        "documents_kept": len(kept),
        "bytes_kept": sum(row["bytes"] for row in kept),
        "dropped": dict(sorted(Counter(row["rule"] for row in rows if row["rule"]).items())),
    }


def _write(
    folder: Path, scored: list[dict[str, Any]], decided: list[dict[str, Any]], config: RefineConfig, parts: int
) -> None:
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    order = sorted(range(len(decided)), key=lambda row: (decided[row]["id"], decided[row]["path"]))
    decided, scored = [decided[row] for row in order], [scored[row] for row in order]
    write_rows(decided, DECISION, evidence / "decisions.parquet")
    share = -(-len(scored) // parts)
    for part in range(parts):
        rows = scored[part * share : (part + 1) * share]
        write_rows(rows, score_schema(SCORES), evidence / f"scores-{part:04d}.parquet")
    dropped_bytes: Counter[str] = Counter()
    for row in decided:
        dropped_bytes.update({row["rule"]: row["bytes"]} if row["rule"] else {})
    groups = {
        f"by_{key}": {name: _tally([row for row in decided if row[key] == name]) for name in names}
        for key, names in (("source", SOURCES), ("language", ("en", *FOREIGN)))
    }
    report = {
        **_tally(decided),
        **groups,
        "dropped_bytes": dict(sorted(dropped_bytes.items())),
        "masked": {"EMAIL": 41, "IP_ADDRESS": 12, "SECRET": 2},
        "evaluation_sets": {"exam": 40, "quiz": 1200},
        "short_items": {"exam": 0, "quiz": 3},
        "contaminated": {"quiz": sum(row["rule"] == "contaminated" for row in decided)},
        "shared_ngrams": {"quiz": {"13": {"documents": 4, "spans": 5}, "8": {"documents": 17, "spans": 23}}},
        "pieces_removed": 3,
        "substrings_cut": 1,
        "timings": {"score_s": random.random()},
    }
    write_json(evidence / "report.json", report)
    ingest = {
        "documents": len(decided),
        "bytes": report["bytes_in"],
        "sources": {
            name: {"documents": tally["documents_in"], "bytes": tally["bytes_in"], "licence": SOURCES[name]}
            for name, tally in groups["by_source"].items()
        },
        "rejects": {"not UTF-8 text": 5, "larger than 1000000 bytes": 1},
    }
    write_json(evidence / "ingest.json", ingest)
    kept = sorted({row["final_id"] for row in decided if row["kept"]})
    manifest = {
        "schema": 1,
        "parameters": {"refine": config.model_dump(mode="json")},
        "content_sha256": hashlib.sha256("\n".join(kept).encode()).hexdigest(),
    }
    write_json(folder / "manifest.json", manifest)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


TOKENIZER_REPORT = {
    "vocab_size": 4096,
    "bytes_per_token": 3.5512,
    "fertility": 1.72,
    "round_trip": 1.0,
    "coverage": {
        "en": {"documents": 180, "bytes_per_token": 3.6},
        "ja": {"documents": 8, "bytes_per_token": 1.4},
    },
    "timings": {"train_s": 3.2},
}
PACK_INDEX = {
    "dtype": "uint16",
    "vocab_size": 4096,
    "splits": {
        "train": {"documents": 150, "tokens": 91_234, "bytes": 320_000, "shards": ["train-0000.bin"]},
        "valid": {"documents": 4, "tokens": 2_345, "bytes": 8_000, "shards": ["valid-0000.bin"]},
    },
}
