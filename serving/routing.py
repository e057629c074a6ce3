"""Routing: which versions may answer a request, by the routes and the request's session."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Arm = Literal["champion", "challenger"]
TrafficSource = Literal["live", "replay", "smoke"]


@dataclass(frozen=True)
class Routes:
    """Versions that are ready to answer. Plain values, because the reconciler pushes them to another process."""

    champion: str | None = None
    challenger: str | None = None
    challenger_weight: int = 0
    """Percent of the traffic."""
    ready: tuple[str, ...] = ()
    """All loaded versions; the previous champion stays loaded, so that a rollback is instant."""
    slow: dict[str, str] = field(default_factory=dict)
    """Version that takes long to load -> what is known of it."""
    deploy_errors: dict[str, str] = field(default_factory=dict)
    """Version that could not be loaded -> reason."""
    release: dict[str, Any] = field(default_factory=dict)
    """Fields of the release state that these routes follow."""
    error: str = ""
    """Error of the last turn of the reconciler; the routes are then the previous ones."""
    error_kind: str = ""
    """Class of that error, such as LedgerBroken."""
    salt: str = ""
    """Random text of the workspace, so that nobody can choose a session of either arm."""
    shadow: bool = False
    """Live requests are sent to the challenger, too, whose answers no user sees."""
    unwatched: bool = False
    """No controller is alive that measures the challenger, so the champion has all live traffic."""
    view: dict[str, Any] = field(default_factory=dict)
    """Content of the page beside it (`sluice.serving.page.view.build_view`)."""


@dataclass(frozen=True)
class Target:
    """One version to call, and its role."""

    arm: Arm
    version: str


class RouteTable:
    """Holder of the routes in force; replaced as a whole, so that a request sees a consistent state."""

    def __init__(self, current: Routes | None = None) -> None:
        self.current = current or Routes()


def targets(routes: Routes, session: str, arm: Arm | None, source: TrafficSource) -> tuple[Target, ...]:
    """Return the versions to call, in order: each is the fallback of the one before. Empty if none may answer.

    Requests of one session meet the same version, as long as the challenger and its weight stay. A request to the
    challenger falls back to the champion, except for smoke tests, which must see the failure. Before the first champion
    only smoke tests and replays are answered.
    """
    champion = Target("champion", routes.champion) if routes.champion else None
    challenger = Target("challenger", routes.challenger) if routes.challenger else None
    if arm is None and champion is None and source != "live":
        arm = "challenger"
    if arm is None:
        share = routes.challenger_weight
        arm = (
            "challenger"
            if challenger and is_challenged(session, challenger.version, share, routes.salt)
            else "champion"
        )
    if arm == "champion" or (champion is None and source == "live"):
        return (champion,) if champion else ()
    if challenger is None:
        return ()
    return (challenger,) if source == "smoke" or champion is None else (challenger, champion)


def is_challenged(session: str, challenger: str, percent: int, salt: str = "") -> bool:
    """Return whether a session belongs to the challenger's share. Deterministic, and monotonic in `percent`.

    The version is hashed too, so that the same users are not part of every canary.
    """
    digest = hashlib.sha256(f"{salt}\n{challenger}\n{session}".encode()).digest()
    return int.from_bytes(digest[:8]) * 100 < percent * 2**64


def session_hash(session: str, salt: str) -> str:
    """Return 16 hex digits that stand for a session in traffic records; empty for none."""
    return hashlib.sha256(f"{salt}\n{session}".encode()).hexdigest()[:16] if session else ""
