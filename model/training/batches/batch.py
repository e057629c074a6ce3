"""One worker's batch of an optimizer step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sluice.model.architecture.inputs import Inputs


@dataclass(frozen=True)
class Batch:
    """One worker's share of an optimizer step."""

    ids: Tensor
    """[rows, seq] int64."""
    targets: Tensor
    """[rows, seq] int64."""
    mask: Tensor | None = None
    """[rows, seq] bool: the targets that count; None: all."""
    documents: Tensor | None = None
    """[rows, seq] int64: of packed rows, where tokens see their own document only."""
    source: Tensor | None = None
    """[rows, source] int64: what an encoder-decoder reads."""
    source_mask: Tensor | None = None
    """[rows, source] bool: False for padding."""
    origins: Tensor | None = None
    """[rows, seq] int64: of held-out rows, the number of the source of the text that each target is from."""

    @property
    def tokens(self) -> int:
        """Targets that count."""
        return int(self.targets.numel() if self.mask is None else self.mask.sum())

    @property
    def inputs(self) -> Inputs:
        """Inputs of the model beside the ids."""
        beside: Inputs = {"documents": self.documents, "source": self.source, "source_mask": self.source_mask}
        return beside

    def split(self, rows: int) -> list["Batch"]:
        """Micro-batches of `rows` rows."""
        parts = -(-len(self.ids) // rows)
        columns = [[None] * parts if each is None else each.split(rows) for each in self._fields]
        return [Batch(*part) for part in zip(*columns, strict=True)]

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if each is None else each.to(device) for each in self._fields))  # type: ignore[arg-type]

    @property
    def _fields(self) -> tuple[Tensor | None, ...]:
        return self.ids, self.targets, self.mask, self.documents, self.source, self.source_mask, self.origins
