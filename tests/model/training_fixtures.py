"""A small corpus, packed for real, and the processes that train on it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from datatrove.data import Document

from data.config import PackConfig, TokenizerConfig
from data.document import content_id, write_documents
from data.packing import pack
from data.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SPLIT = PackConfig(valid_fraction=0.1, test_fraction=0.1)
MODEL: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "context": 32}

_SUBJECTS = "queue worker cache model gate token ledger head stage shard".split()
_VERBS = "reads writes holds moves drops checks keeps names counts sends".split()
_OBJECTS = "records weights batches pages rows keys alerts logs files slots".split()


def sentence(rng: random.Random) -> str:
    return f"The {rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)} for the {rng.choice(_SUBJECTS)}."


def document_text(rng: random.Random, number: int) -> str:
    parts = [f"# Guide {number}", sentence(rng)]
    for subject in rng.sample(_SUBJECTS, 4):
        parts += [f"## The {subject}", " ".join(f"{sentence(rng)}" for _ in range(4))]
    return "\n\n".join(parts)


def write_corpus(folder: Path, documents: int = 80) -> None:
    """Documents, tokenizer and token shards below `folder`."""
    rng = random.Random(5)
    for name in ("documents", "tokenizer", "pack"):
        (folder / name).mkdir(parents=True)
    texts = [document_text(rng, number) for number in range(documents)]
    write_documents(
        [Document(text=text, id=content_id(text), metadata={"source": "test"}) for text in texts],
        folder / "documents",
        per_shard=50,
    )
    train_tokenizer(TokenizerConfig(vocab_size=400), folder / "documents", folder / "tokenizer", split=SPLIT)
    pack(SPLIT, folder / "documents", folder / "tokenizer", folder / "pack")


def request(folder: Path, corpus: Path, config: dict[str, Any]) -> Path:
    """A request file for `python -m model.training.pretrain` that works below `folder`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    content = {
        "config": config,
        "model": MODEL,
        "packed": str(corpus / "pack"),
        "tokenizer": str(corpus / "tokenizer"),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
    }
    (folder / "request.json").write_text(json.dumps(content))
    return folder / "request.json"


def torchrun(workers: int, *arguments: str) -> list[str]:
    """Command line that runs a module or script in `workers` processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(command: list[str], timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run to the end; a failure shows what the process said."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def rows(folder: Path) -> list[dict[str, Any]]:
    """training.jsonl of a finished run."""
    return [json.loads(line) for line in (folder / "out" / "training.jsonl").read_text().splitlines()]
