"""Select the training documents by the mix, order them and lay them out."""

from array import array

import numpy as np

from sluice.data.config import PackConfig
from sluice.data.packing.best_fit import best_fit_cost, concatenated_cost, lay_rows
from sluice.data.packing.mix import plan, sample
from sluice.data.packing.order import identity_hash, keyed
from sluice.data.packing.report import Layout, LayoutCost, SourceTokens
from sluice.data.packing.shards import PADDING, ShardWriter, TokenSequence, save


class TrainingTable:
    """Facts for mixing and ordering the training documents, in stored order: 28 bytes a document."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        """Number of every source, including those without training documents."""
        self.hashes, self.source, self.tokens, self.bytes = array("Q"), array("i"), array("q"), array("q")

    def number(self, source: str) -> int:
        return self.numbers.setdefault(source, len(self.numbers))

    def add(self, identity: str, source: str, tokens: int, size_bytes: int) -> None:
        self.hashes.append(identity_hash(identity))
        self.source.append(self.number(source))
        self.tokens.append(tokens)
        self.bytes.append(size_bytes)


class Training:
    """The training documents that are used, and how often. Arrays are [documents], in stored order."""

    def __init__(self, config: PackConfig, table: TrainingTable) -> None:
        self.config, self.numbers = config, table.numbers
        self.tokens = np.array(table.tokens, dtype=np.int64)
        self.offsets = np.cumsum(self.tokens) - self.tokens
        self.hashes = np.array(table.hashes, dtype=np.uint64)
        self.source = np.array(table.source, dtype=np.int64)
        self.bytes = np.array(table.bytes, dtype=np.int64)
        available = self._by_source(self.tokens)
        self.plan = plan(available, config.mix, config.train_tokens)
        self.copies = np.zeros(len(self.tokens), dtype=np.int64)
        for name, share in self.plan.items():
            mine = np.flatnonzero(self.source == self.numbers[name])
            self.copies[mine] = sample(self.tokens[mine], self.hashes[mine], share.planned, config.seed)
        planned = sum(share.planned for share in self.plan.values())
        if planned < self.tokens.min():
            raise ValueError(
                f"pack.mix and pack.train_tokens leave {planned} training tokens, less than a document of any source: "
                "raise train_tokens or max_epochs"
            )

    def _by_source(self, values: np.ndarray) -> dict[str, int]:
        """Sum the values [documents] by source."""
        # Floats represent these sums exactly, because they are below 2**53.
        sums = np.bincount(self.source, weights=values, minlength=len(self.numbers))
        return {name: int(sums[number]) for name, number in self.numbers.items()}

    def sources(self) -> dict[str, SourceTokens]:
        """Tokens planned and used by source."""
        used, documents = self._by_source(self.copies * self.tokens), self._by_source(self.copies)
        return {
            name: SourceTokens(
                available=share.available,
                planned=share.planned,
                used=used[name],
                epochs=used[name] / max(share.available, 1),
                documents=documents[name],
            )
            for name, share in self.plan.items()
        }

    def order(self) -> np.ndarray:
        """Return document numbers [uses] in the order of training: epoch after epoch, or shuffled over all epochs."""
        used = [np.flatnonzero(self.copies > epoch) for epoch in range(int(self.copies.max()))]
        order = np.concatenate(used)
        if self.config.order == "stored":
            return order
        epochs = np.repeat(np.arange(len(used)), [len(each) for each in used])
        hashes = self.hashes[order]
        return order[np.lexsort((epochs, hashes, keyed(hashes, "shuffle", self.config.seed, epochs)))]

    def lay_out(self, encoded: TokenSequence, writer: ShardWriter, eos: int) -> dict[Layout, LayoutCost]:
        """Write the documents in training order; `encoded` has their tokens in stored order."""
        order = self.order()
        writer.counts.documents, writer.counts.bytes = len(order), int(self.bytes[order].sum())
        row_tokens = self.config.row_tokens
        if row_tokens is None:
            for start, length in zip(self.offsets[order].tolist(), self.tokens[order].tolist(), strict=True):
                writer.write(encoded.read(start, length))
            return {}
        rows = lay_rows(self.tokens[order], row_tokens)
        starts = self.offsets[order[rows.document]] + rows.start
        is_last = np.append(np.diff(rows.row) > 0, True)
        owners = array("q")
        for owner, start, length, last in zip(
            rows.document.tolist(), starts.tolist(), rows.length.tolist(), is_last.tolist(), strict=True
        ):
            writer.write(encoded.read(start, length))
            owners.append(owner)
            padding = -writer.counts.tokens % row_tokens
            if last and padding:
                writer.write(np.full(padding, eos, dtype=writer.dtype))
                writer.counts.padding += padding
                owners.append(PADDING)
        save(writer.out / f"{writer.split}.documents.npy", owners)
        return {
            "best_fit": best_fit_cost(rows, row_tokens),
            "concatenated": concatenated_cost(self.tokens[order], row_tokens),
        }
