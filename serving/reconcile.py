"""Plan the next step from the loaded versions to the release. Pure; `sluice.serving.ray_serve` carries it out."""

import time
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import asdict, dataclass, field

from sluice.serving.lease import LOST_S, LeaseRow, LeaseWatch
from sluice.serving.release import ReleaseState
from sluice.serving.routing import Routes


@dataclass(frozen=True)
class ObservedVersions:
    """Versions on the cluster, by status."""

    loading: Set[str] = frozenset()
    ready: Set[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Version that failed to load or stopped working -> reason."""
    retry: Set[str] = frozenset()
    """Failed versions to load again now."""
    slow: Mapping[str, str] = field(default_factory=dict)
    """Version that takes long to load -> what is known of it."""


@dataclass(frozen=True)
class ReconcilePlan:
    """The next step towards the release."""

    deploy: tuple[str, ...]
    """Versions to load, most urgent first."""
    unneeded: tuple[str, ...]
    """Versions that nothing refers to; they are deleted once their requests have finished."""
    waiting: tuple[str, ...]
    """Versions of the release that are neither ready nor failed."""
    routes: Routes


class ControllerWatch:
    """Tells whether a challenger is without a controller; `clock` returns seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lease_watch = clock, LeaseWatch(clock)
        self._seen: tuple[str | None, float] = None, clock()
        """The challenger, and when it was new or its controller was last seen alive."""

    def is_lost(self, challenger: str | None, lease: LeaseRow | None) -> bool:
        """Return whether no controller has been alive for the challenger for LOST_S.

        `lease` is read after `challenger`, so that a controller that has just begun is seen. One that ends writes the
        end of its rollout first, and then gives up its lease.
        """
        now, is_alive = self._clock(), self._lease_watch.is_alive(lease)
        if lease is not None and lease.version == challenger:
            self._seen = (challenger, now) if is_alive else self._seen
            return not is_alive
        if self._seen[0] != challenger:
            self._seen = challenger, now
        return challenger is not None and now - self._seen[1] > LOST_S


def plan_reconcile(
    release: ReleaseState, observed: ObservedVersions, routes: Routes, asked_for: Collection[str] = ()
) -> ReconcilePlan:
    """Plan the next step; `routes` are the ones in force, and `asked_for` versions to load besides the release's.

    - The champion changes only to a version that is ready; until then the old one answers. If the champion failed to
      load and no other champion was in force, its predecessor answers, and `deploy_errors` gives the reason.
    - A challenger that failed to load keeps its route: its requests fail, are answered by the champion and counted, so
      a rollout sees the failures instead of waiting.
    - The previous champion stays loaded, so a rollback takes effect at once.
    """
    named = (release.champion, release.challenger, release.previous_champion)
    wanted = tuple(dict.fromkeys(version for version in (*named, *asked_for) if version))
    champion = _champion(release, observed, routes)
    is_challenged = release.challenger in observed.ready or release.challenger in observed.failed
    blocked = observed.loading | observed.ready | (observed.failed.keys() - observed.retry)
    present = observed.loading | observed.ready | observed.failed.keys()
    return ReconcilePlan(
        deploy=tuple(version for version in wanted if version not in blocked),
        unneeded=tuple(sorted(present - {*wanted, champion})),
        waiting=tuple(version for version in wanted if version not in observed.ready | observed.failed.keys()),
        routes=Routes(
            champion=champion,
            challenger=release.challenger if is_challenged else None,
            challenger_weight=release.challenger_weight if is_challenged else 0,
            ready=tuple(sorted(observed.ready)),
            slow={version: observed.slow[version] for version in wanted if version in observed.slow},
            deploy_errors={version: observed.failed[version] for version in wanted if version in observed.failed},
            release=asdict(release),
        ),
    )


def _champion(release: ReleaseState, observed: ObservedVersions, routes: Routes) -> str | None:
    if release.champion is None or release.champion in observed.ready:
        return release.champion
    if routes.champion in observed.ready and routes.champion != release.challenger:
        return routes.champion
    can_substitute = release.champion in observed.failed and release.previous_champion in observed.ready
    return release.previous_champion if can_substitute else None
