"""From a local source to packed tokens with every socket to the outside closed."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from test_refine import page

from sluice.data.build import build
from sluice.data.config import IngestConfig, PackConfig, RefineConfig, TokenizerConfig
from sluice.data.packing import pack
from sluice.data.tokenization import train_tokenizer


@pytest.fixture
def outside_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuses and records every network call."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        raise OSError(f"the network is closed: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return asked


def test_the_data_path_uses_no_network(tmp_path: Path, outside_calls: list[Any]) -> None:
    source = tmp_path / "pages.jsonl"
    topics = ("queries", "signals", "caching", "sessions")
    texts = [page(topics[n % 4], n) for n in range(80)] + ["<p>Call +49 30 901820 or write to a@b.example.</p>" * 9]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    repeating = dict.fromkeys(f"max_top_{n}gram_fraction" for n in (2, 3, 4))
    settings = RefineConfig(workers=1, max_piece_copies=3, min_substring_words=64, **repeating)
    report = build(IngestConfig(sources=str(source)), settings, tmp_path / "corpus")
    assert report.refine.documents_kept >= 60
    split = PackConfig(test_fraction=0.2, valid_fraction=0.2)
    for name in ("tokenizer", "pack"):
        (tmp_path / name).mkdir()
    tokenizer = train_tokenizer(
        TokenizerConfig(vocab_size=400), tmp_path / "corpus", tmp_path / "tokenizer", split=split
    )
    assert tokenizer.round_trip == 1.0
    assert pack(split, tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "pack").splits["train"].tokens > 1000
    assert outside_calls == []
