"""Replace personal data and secrets by typed placeholders."""

from sluice.data.privacy.mask import KINDS, Found, find, mask

__all__ = ["KINDS", "Found", "find", "mask"]
