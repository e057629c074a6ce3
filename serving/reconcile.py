"""From what the release wants and what is loaded to what is to be done. Pure; `sluice.serving.ray_serve.server` does it."""

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field

from sluice.serving.releases import ReleaseState
from sluice.serving.routing import Routes


@dataclass(frozen=True)
class Observed:
    """What has become of the versions."""

    loading: Set[str] = frozenset()
    ready: Set[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Version that could not be loaded, or broke down -> why."""
    retry: Set[str] = frozenset()
    """Those of them to load again now."""


@dataclass(frozen=True)
class Plan:
    """The next step towards the release."""

    deploy: tuple[str, ...]
    """Versions to load, the most urgent first."""
    unneeded: tuple[str, ...]
    """Versions that nothing refers to any more; they go when their requests are done."""
    waiting: tuple[str, ...]
    """Versions of the release that are neither ready nor failed."""
    routes: Routes


def plan(release: ReleaseState, observed: Observed, routes: Routes) -> Plan:
    """What to do next; `routes` are the ones in force.

    - The champion changes only to a version that is ready: until then the one before answers. While the champion cannot
      answer and none was before, its predecessor stands in, and `deploy_errors` says so.
    - A challenger that cannot be loaded keeps its route: its requests fail, are answered by the champion and counted,
      so a rollout sees them instead of waiting.
    - The previous champion stays loaded: a rollback takes effect at once.
    """
    named = (release.champion, release.challenger, release.previous_champion)
    wanted = tuple(dict.fromkeys(version for version in named if version))
    champion = _champion(release, observed, routes)
    is_challenged = release.challenger in observed.ready or release.challenger in observed.failed
    blocked = observed.loading | observed.ready | (observed.failed.keys() - observed.retry)
    present = observed.loading | observed.ready | observed.failed.keys()
    return Plan(
        deploy=tuple(version for version in wanted if version not in blocked),
        unneeded=tuple(sorted(present - {*wanted, champion})),
        waiting=tuple(version for version in wanted if version not in observed.ready | observed.failed.keys()),
        routes=Routes(
            champion=champion,
            challenger=release.challenger if is_challenged else None,
            challenger_weight=release.challenger_weight if is_challenged else 0,
            ready=tuple(sorted(observed.ready)),
            deploy_errors={version: observed.failed[version] for version in wanted if version in observed.failed},
            release=asdict(release),
        ),
    )


def _champion(release: ReleaseState, observed: Observed, routes: Routes) -> str | None:
    if release.champion is None or release.champion in observed.ready:
        return release.champion
    if routes.champion in observed.ready and routes.champion != release.challenger:
        return routes.champion
    stands_in = release.champion in observed.failed and release.previous_champion in observed.ready
    return release.previous_champion if stands_in else None
