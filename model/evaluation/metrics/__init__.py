"""Registry of metrics: every module of this folder defines one as METRIC. They run in the order of their file names."""

from importlib import import_module
from pkgutil import iter_modules

from pydantic import create_model

from sluice.model.config import GateSettings
from sluice.model.evaluation.metric import Metric

METRICS: tuple[Metric, ...] = tuple(
    import_module(f"{__name__}.{name}").METRIC for name in sorted(module.name for module in iter_modules(__path__))
)

GateConfig: type[GateSettings] = create_model(
    "GateConfig",
    __base__=tuple(metric.bounds for metric in reversed(METRICS)),
    __doc__="Bounds of the verdict: the common settings and those of every metric.",
    __module__=__name__,
)
