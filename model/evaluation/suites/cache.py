"""Answers of one model that are kept on disk, so that a killed evaluation resumes and a repeated one asks nothing.

A file belongs to one model and one version of the code, whose hashes are its name and its first line; a file with
another first line is refused. A line is one answer under the hash of its request, with its own checksum, appended when
it is known. A line that a killed process left half written is cut off.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import sluice
from sluice.core.canonical import canonical_json
from sluice.core.files import try_lock
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import (
    AnswerRequest,
    Continuation,
    ContinuationRequest,
    EvaluatedModel,
    GeneratedAnswer,
)

_SCHEMA = 1
_GENERATIONS_AT_ONCE, _CONTINUATIONS_AT_ONCE = 16, 512
_CODE = ("core", "data", "model")
_LIBRARIES = ("torch", "tokenizers", "numpy")

Request = TypeVar("Request", ContinuationRequest, AnswerRequest)
Answer = TypeVar("Answer", Continuation, GeneratedAnswer)


@cache
def code_hash() -> str:
    """sha256 of the code that answers and measures: our packages up to model/, and the libraries' versions."""
    root = Path(sluice.__file__).parent
    digest = hashlib.sha256(repr([(name, version(name)) for name in _LIBRARIES]).encode())
    for package in _CODE:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class AnswerCache:
    """The kept answers of one model. Only one process may have it open."""

    def __init__(self, folder: Path, model_hash: str, code: str | None = None) -> None:
        """Open or make the file of this model in `folder`. ValueError for another model's file, and for one in use."""
        code = code or code_hash()
        header = {"schema": _SCHEMA, "model": model_hash, "code": code}
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{model_hash[:16]}-{code[:16]}.jsonl"
        self._file: IO[bytes] = self.path.open("a+b")
        if not try_lock(self._file.fileno()):
            self._file.close()
            raise ValueError(f"{self.path} is in use by another evaluation of this model: wait until it has ended")
        self._answers: dict[str, dict[str, Any]] = {}
        try:
            self._read(header)
        except ValueError:
            self._file.close()
            raise

    def _read(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file):
            row = _parsed(line)
            if row is None:
                break
            if number == 0 and row != header:
                raise ValueError(
                    f"{self.path} holds answers of model {str(row.get('model'))[:12]}, not of "
                    f"{header['model'][:12]}, or of other code: it was moved here; remove it"
                )
            if number > 0:
                if row.get("sha256") != _checksum(row.get("key"), row.get("answer")):
                    break
                self._answers[row["key"]] = row["answer"]
            end += len(line)
        # Lines after a damaged one are answered again.
        self._file.truncate(end)
        if end == 0:
            self._append(header)

    def get(self, key: str) -> dict[str, Any] | None:
        return self._answers.get(key)

    def put(self, answers: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Keep answers; they are on their way to the disk when this returns."""
        for key, answer in answers:
            if key not in self._answers:
                self._answers[key] = answer
                self._append({"key": key, "answer": answer, "sha256": _checksum(key, answer)})
        self._file.flush()

    def _append(self, row: dict[str, Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        # NaN is written as JSON's readers of Python know it: a model may give no number.
        self._file.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class CachedModel:
    """A model whose answers are kept. It is opened at the first request without a kept answer."""

    model_hash: str
    can_score: bool
    open: Callable[[], EvaluatedModel]
    cache: AnswerCache
    keeps_errors: bool = False
    """Whether an error would be the same again, such as a prompt beyond the context of a model directory."""

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        def restore(row: dict[str, Any]) -> Continuation:
            return Continuation(**{**row, "token_nats": tuple(row["token_nats"]), "tokens": tuple(row["tokens"])})

        def ask(some: Sequence[ContinuationRequest]) -> list[Continuation]:
            return self.open().score(some)

        return self._answers(requests, _CONTINUATIONS_AT_ONCE, ask, restore, progress)

    def generate(self, requests: Sequence[AnswerRequest], progress: Progress = no_progress) -> list[GeneratedAnswer]:
        def ask(some: Sequence[AnswerRequest]) -> list[GeneratedAnswer]:
            return self.open().generate(some)

        return self._answers(requests, _GENERATIONS_AT_ONCE, ask, lambda row: GeneratedAnswer(**row), progress)

    def _answers(
        self,
        requests: Sequence[Request],
        at_once: int,
        ask: Callable[[Sequence[Request]], list[Answer]],
        restore: Callable[[dict[str, Any]], Answer],
        progress: Progress,
    ) -> list[Answer]:
        """Answer in chunks that do not depend on what is kept, so that a resumed run computes in the same batches."""
        found: list[Answer] = []
        for start in range(0, len(requests), at_once):
            chunk = requests[start : start + at_once]
            keys = [request_key(request) for request in chunk]
            kept = [self.cache.get(key) for key in keys]
            if any(row is None for row in kept):
                answers = ask(chunk)
                pairs = zip(keys, map(asdict, answers), strict=True)
                self.cache.put((key, row) for key, row in pairs if self.keeps_errors or not row.get("error"))
                found += answers
            else:
                found += [restore(row) for row in kept if row is not None]
            progress(len(found), len(requests), "answers")
        return found


def request_key(request: ContinuationRequest | AnswerRequest) -> str:
    """sha256 of all that a request asks."""
    return hashlib.sha256(canonical_json([type(request).__name__, asdict(request)])).hexdigest()


def _checksum(key: Any, answer: Any) -> str:
    return hashlib.sha256(json.dumps([key, answer], sort_keys=True).encode()).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the row of a line; None for one that is damaged or has no end."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
