"""Registry of metrics: every module of this folder defines one as METRIC. They run in the order of their file names."""

from importlib import import_module
from pkgutil import iter_modules

from sluice.model.evaluation.metric import Metric

METRICS: tuple[Metric, ...] = tuple(
    import_module(f"{__name__}.{name}").METRIC for name in sorted(module.name for module in iter_modules(__path__))
)
