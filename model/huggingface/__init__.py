"""Conversion from and to the families of transformers that `FAMILIES` lists, from Llama to Mamba-2.

Each family is one file: functions that read and write its config.json, and a table of weight names.
"""

from sluice.model.huggingface.config import (
    FAMILIES,
    NATIVE,
    config_from_huggingface,
    family_fields,
    family_of,
    obstacles,
    read_config,
    why_none,
    write_config,
)
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.state import (
    FamilyWeights,
    expected_shapes,
    from_huggingface,
    own_weights,
    skeleton,
    tidy,
    to_huggingface,
)

__all__ = [
    "FAMILIES",
    "NATIVE",
    "Family",
    "FamilyWeights",
    "config_from_huggingface",
    "expected_shapes",
    "family_fields",
    "family_of",
    "from_huggingface",
    "obstacles",
    "own_weights",
    "read_config",
    "skeleton",
    "tidy",
    "to_huggingface",
    "why_none",
    "write_config",
]
