"""The policy by which the gate judges: a YAML file with bounds by metric, suites that must be there, and slices.

A metric's own file (sluice.model.evaluation.metrics) has its defaults; the policy file overrides any of them.

```yaml
name: strict
version: 3
alpha: 0.05
metrics:
  bits_per_byte: {margin: 0.01, min_clusters: 200}
  first_token_p95_ms: off
suites:
  arithmetic: {direction: higher, floor: 0.3, margin: 0.05}
slices:
  - {metric: bits_per_byte, key: language, margin: 0.05, required: [de]}
```
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from sluice.core.canonical import canonical_json
from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.model.evaluation.judging.agreement import LEAST_KAPPA
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.metrics import METRICS

DEFAULTS: Mapping[str, MetricPolicy] = {metric.name: metric.policy for metric in METRICS}


class SlicePolicy(Block):
    """Slices of one metric by a key of the items' metadata: source, language, locale, device, task, .."""

    metric: str
    key: str
    margin: float = Field(ge=0)
    """A slice fails where the candidate is shown to be worse than the champion by more than this; for a required slice
    it must be shown to be worse by less."""
    min_clusters: int = Field(10, ge=2)
    """A slice with fewer documents is named and not judged."""
    min_required_clusters: int | None = Field(None, ge=2)
    """A required slice with fewer documents is inconclusive; null: the metric's own `min_clusters`."""
    required: Sequence[str] = ()
    """Values of `key` whose slice must be judged."""


class Policy(Block):
    """A complete policy: every metric with all of its bounds."""

    name: str = Field(min_length=1)
    version: int = Field(ge=1)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Error of each one-sided check, uncorrected, for a promotion; of all checks together, by Holm, for a rejection."""
    min_kappa: float = Field(LEAST_KAPPA, ge=LEAST_KAPPA, le=1)
    """A scorer decides only where the lower limit of its kappa against people is at least this."""
    metrics: dict[str, MetricPolicy] = {}
    """By name: those that `sluice evaluate` measures. What is left out has its defaults; `off` takes it out."""
    suites: dict[str, MetricPolicy] = {}
    """By suite, or `suite.scorer`: a suite that is named must be in the evaluation."""
    slices: tuple[SlicePolicy, ...] = ()
    anchor: str | None = None
    """Version of the registry from which the budgets count; null: the first one that was promoted."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Lay the metrics of a file over the defaults."""
        given = values.get("metrics") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(given or {}, dict):
            return values
        if unknown := sorted(set(given or {}) - set(DEFAULTS), key=str):
            raise ValueError(
                f"unknown metric '{unknown[0]}' in `metrics`: allowed are {', '.join(DEFAULTS)}; a suite belongs into "
                "`suites`"
            )
        complete: dict[str, Any] = {name: default.shown() for name, default in DEFAULTS.items()}
        for name, changed in (given or {}).items():
            if changed is None or changed is False or changed == "off":  # YAML reads a bare `off` as false
                del complete[name]
                continue
            over = changed.shown() if isinstance(changed, MetricPolicy) else changed
            complete[name] = {**complete[name], **over} if isinstance(over, dict) else over
        return {**values, "metrics": complete}

    @model_validator(mode="after")
    def _slices_name_metrics(self) -> "Policy":
        names = [*self.metrics, *self.suites]
        if both := sorted(set(self.metrics) & set(self.suites)):
            raise ValueError(f"'{both[0]}' is a metric: put it into `metrics`, not into `suites`")
        for name, bounds in self.metrics.items():
            if bounds.over_chance and not DEFAULTS[name].over_chance:
                raise ValueError(f"over_chance has no effect for {name}, which has no choices: leave it out")
        of_files = {metric.name for metric in METRICS if metric.file_hash is not None}
        if pinned := [name for name, each in self.metrics.items() if each.sha256 and name not in of_files]:
            raise ValueError(
                f"sha256 has no effect for {pinned[0]}, whose items come from the data: it pins {', '.join(of_files)} "
                "and suites"
            )
        measured = {metric.name for metric in METRICS if metric.reference is not None}
        for name, bounds in {**self.metrics, **self.suites}.items():
            if bounds.beat_reference and name not in measured:
                raise ValueError(f"beat_reference has no effect for {name}: only {', '.join(measured)} has a reference")
        for each in self.slices:
            if each.metric not in names:
                raise ValueError(f"unknown metric '{each.metric}' in `slices`: allowed are {', '.join(names)}")
        return self

    @property
    def off(self) -> tuple[str, ...]:
        """Metrics that the policy takes out: nothing is asked of them."""
        return tuple(name for name in DEFAULTS if name not in self.metrics)

    @property
    def sha256(self) -> str:
        """Hash of the complete policy, so that a default that changed is another policy."""
        return hashlib.sha256(canonical_json(self.shown())).hexdigest()


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises ValueError naming file, key and what is allowed."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506  (a SafeLoader)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such policy; name a YAML file such as conf/gate/default.yaml") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a policy: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a policy: it must be a mapping with name, version and metrics")
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {mistake(Policy, error)}") from None


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"key {name} is no text", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{name}' is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
