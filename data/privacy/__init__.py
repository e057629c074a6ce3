"""Replace personal data and secrets by typed placeholders."""

from sluice.data.privacy.mask import KINDS, MaskedSpan, find, mask

__all__ = ["KINDS", "MaskedSpan", "find", "mask"]
