"""The duplicate index: sketches of the documents that earlier runs kept, so that later runs keep nothing twice."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.core.files import atomic_write, remove, try_lock
from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import Duplicate
from sluice.data.deduplication.ragged_arrays import RowReader, write_column
from sluice.data.deduplication.shingles import jaccard
from sluice.data.deduplication.sketch_store import SketchPart, band, buckets, folders, write_bands

_RUN = re.compile(r"\A(\d{6})-([0-9a-f]{1,64})\Z")
_ENTRIES_A_KEY = 64
_SCHEMA = 1
_IDS = "ids.npy"
_SETTINGS, _LOCK = "index.json", ".lock"


@dataclass(frozen=True)
class DuplicateIndex:
    """A folder with a folder `NNNNNN-FINGERPRINT` for each run, in the order in which the runs were added.

    The fingerprint (hex) identifies a run's inputs and settings. A run is compared only with runs added before it, so a
    repeated run does not match its own entries or later ones, and has the same outcome.
    """

    folder: Path
    settings: dict[str, int]

    @classmethod
    def open(cls, folder: Path, config: RefineConfig) -> "DuplicateIndex":
        """Open an index without writing. Raises ValueError for other content or other MinHash settings."""
        for path in (folder, *folder.parents):
            if path.exists() and not path.is_dir():
                what = "is a file" if path == folder else f"lies below the file {path}"
                raise ValueError(f"index {folder} {what}: name an empty or a new folder for the index")
        # A run that was killed may have left its lock and unfinished settings.
        if folder.is_dir() and not (folder / _SETTINGS).is_file():
            left = (path.name for path in folder.iterdir())
            if any(name != _LOCK and not name.startswith(f".{_SETTINGS}.") for name in left):
                raise ValueError(
                    f"index {folder} holds something that is not an index: name an empty or a new folder for the index"
                )
        index = cls(
            folder,
            {
                "schema": _SCHEMA,
                "minhash_buckets": config.minhash_buckets,
                "minhash_hashes_per_bucket": config.minhash_hashes_per_bucket,
                "minhash_ngram": config.minhash_ngram,
            },
        )
        path = folder / _SETTINGS
        if path.exists():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is damaged: {error}; use another folder for index") from error
            if stored != index.settings:
                raise ValueError(
                    f"index {folder} was made with {stored}, not with {index.settings}: "
                    "set the same values or use another folder"
                )
        return index

    def runs(self) -> list[Path]:
        """Folders of the runs, in the order in which they were added."""
        if not self.folder.exists():
            return []
        return sorted(path for path in self.folder.iterdir() if _RUN.match(path.name))

    def earlier_runs(self, fingerprint: str) -> list[Path]:
        """Folders of the runs before the one with this fingerprint, or of all runs if there is none."""
        before = []
        for path in self.runs():
            if path.name.partition("-")[2] == fingerprint:
                break
            before.append(path)
        return before

    def duplicates(
        self,
        parts: Sequence[SketchPart],
        ids: Sequence[str],
        eligible: np.ndarray,
        min_jaccard: float,
        fingerprint: str,
    ) -> list[Duplicate]:
        """Find eligible documents ([slots] bool) that equal or resemble one that an earlier run kept, by id.

        Of several twins the most similar is returned; of equally similar ones the equal text, else the smallest id.
        """
        best: dict[str, Duplicate] = {}
        documents = np.flatnonzero(eligible)
        with RowReader(folders(parts), "shingles") as shingles:
            for run in self.earlier_runs(fingerprint):
                twins = _twins(run, parts, ids, documents, shingles=shingles, min_jaccard=min_jaccard)
                for document, twin, similarity in twins:
                    found = Duplicate(ids[document], twin, similarity)
                    known = best.get(found.id)
                    if known is None or _preference(found) < _preference(known):
                        best[found.id] = found
        return sorted(best.values(), key=lambda duplicate: duplicate.id)

    def add(self, parts: Sequence[SketchPart], ids: Sequence[str], kept: np.ndarray, fingerprint: str) -> bool:
        """Add what a run kept ([slots] bool, distinct ids) atomically. Returns False if it is there already.

        A repeated run that keeps other documents has its entries replaced, without changing the order of runs. Raises
        ValueError if another process is adding to the index.
        """
        if not re.fullmatch(r"[0-9a-f]{1,64}", fingerprint):
            raise ValueError(f"fingerprint {fingerprint!r} must be 1 to 64 hex digits")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as lock:
            if not try_lock(lock):
                raise ValueError(f"another run is adding to index {self.folder}: run this one again after it")
            if not (self.folder / _SETTINGS).exists():
                with atomic_write(self.folder / _SETTINGS) as partial:
                    partial.write_text(json.dumps(self.settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            for unfinished in self.folder.glob(".[!l]*"):  # of a run that was killed; .lock stays
                remove(unfinished)
            runs = self.runs()
            number = int(runs[-1].name.partition("-")[0]) + 1 if runs else 0
            known = [path for path in runs if path.name.partition("-")[2] == fingerprint]
            place = known[0] if known else self.folder / f"{number:06d}-{fingerprint}"
            # In the order of ids, so that the bytes do not depend on the parts.
            documents = np.array(sorted(np.flatnonzero(kept).tolist(), key=lambda document: ids[document]), np.int64)
            names = np.asarray([ids[document] for document in documents], dtype="S32")
            assert len(np.unique(names)) == len(names), "an index holds distinct ids: remove exact duplicates first"
            if known and np.array_equal(np.load(place / _IDS), names):
                return False
            with atomic_write(place) as partial:
                partial.mkdir()
                np.save(partial / _IDS, names)
                keys = [band(parts, bucket)[documents] for bucket in range(buckets(parts))]
                write_bands(partial, np.array(keys, dtype=np.uint64).reshape(len(keys), len(documents)).T)
                with RowReader(folders(parts), "shingles") as shingles:
                    write_column(partial, "shingles", (shingles[document] for document in documents.tolist()))
        return True


def _preference(found: Duplicate) -> tuple[float, bool, str]:
    return -found.jaccard, found.duplicate_of != found.id, found.duplicate_of


def _twins(
    run: Path,
    parts: Sequence[SketchPart],
    ids: Sequence[str],
    documents: np.ndarray,
    *,
    shingles: RowReader,
    min_jaccard: float,
) -> Iterator[tuple[int, str, float]]:
    """Yield (slot, id of its twin in the run, Jaccard); for a document that is in the run, only itself as twin."""
    kept = np.load(run / _IDS)
    if not len(kept) or not len(documents):
        return
    names = np.asarray([ids[document] for document in documents], dtype="S32")
    places = np.minimum(np.searchsorted(kept, names), len(kept) - 1)
    same = kept[places] == names
    for document in documents[same].tolist():
        yield document, ids[document], 1.0
    with RowReader([run], "shingles") as of_run:
        held, of_held = -1, np.empty(0, np.uint64)
        for document, entry in _candidates(SketchPart(run), parts, documents[~same]).tolist():
            if document != held:
                held, of_held = document, shingles[document]
            similarity = jaccard(of_held, of_run[entry])
            if similarity >= min_jaccard:
                yield document, kept[entry].decode(), similarity


def _candidates(run: SketchPart, parts: Sequence[SketchPart], documents: np.ndarray) -> np.ndarray:
    """Return sorted pairs (slot, entry of the run) that agree in a band, [pairs, 2] int64.

    Entries are kept documents, no two of them near duplicates, so few share a key: at most 64, those of the smallest
    ids, are compared.
    """
    found = [np.empty((0, 2), np.int64)]
    for bucket in range(run.buckets):
        keys, entries = band(parts, bucket)[documents], run.band(bucket)
        order = np.argsort(entries, kind="stable")
        entries = entries[order]
        first, end = np.searchsorted(entries, keys), np.searchsorted(entries, keys, side="right")
        count = np.minimum(end - first, _ENTRIES_A_KEY)
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        found.append(np.stack([np.repeat(documents, count), order[np.repeat(first, count) + offset]], axis=1))
    return np.unique(np.concatenate(found), axis=0)
