"""Registry of scorers: every module of this folder may define some as SCORERS."""

from importlib import import_module
from pkgutil import iter_modules

from sluice.model.evaluation.suites.scorer import Scorer

SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for name in sorted(module.name for module in iter_modules(__path__))
    for scorer in getattr(import_module(f"{__name__}.{name}"), "SCORERS", ())
}
