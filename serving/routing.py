"""Which version answers a request. Pure: the release decides the weights, the request's id decides its side."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Arm = Literal["champion", "challenger"]
TrafficSource = Literal["live", "replay", "smoke"]


@dataclass(frozen=True)
class Routes:
    """Versions that are ready to answer. Plain values: the reconciler pushes them to the gateway."""

    champion: str | None = None
    challenger: str | None = None
    challenger_weight: int = 0
    """Percent of the traffic."""
    ready: tuple[str, ...] = ()
    """All versions that are loaded; the previous champion stays among them, so that a rollback is instant."""
    deploy_errors: dict[str, str] = field(default_factory=dict)
    """Why a version could not be loaded."""
    release: dict[str, Any] = field(default_factory=dict)
    """The release state that these routes come from."""
    error: str = ""
    """Why the release state could not be read; the routes stay as they were."""


@dataclass(frozen=True)
class Target:
    """One version that is asked, and in which role."""

    arm: Arm
    version: str


class RouteTable:
    """The routes in force. Replaced as a whole, so a request sees one state or the other."""

    def __init__(self, current: Routes | None = None) -> None:
        self.current = current or Routes()


def targets(routes: Routes, request_id: str, arm: Arm | None, source: TrafficSource) -> tuple[Target, ...]:
    """The versions to ask, in order: the next one answers when the one before it fails. Empty when none may.

    A request on the challenger falls back to the champion. Smoke tests do not: they are there to see the failure.
    Before the first champion only smoke tests and replays are answered.
    """
    champion = Target("champion", routes.champion) if routes.champion else None
    challenger = Target("challenger", routes.challenger) if routes.challenger else None
    if arm is None and champion is None and source != "live":
        arm = "challenger"
    if arm is None:
        share = routes.challenger_weight
        arm = "challenger" if challenger and is_challenged(request_id, challenger.version, share) else "champion"
    if arm == "champion" or (champion is None and source == "live"):
        return (champion,) if champion else ()
    if challenger is None:
        return ()
    return (challenger,) if source == "smoke" or champion is None else (challenger, champion)


def is_challenged(request_id: str, challenger: str, percent: int) -> bool:
    """Whether a request belongs to the challenger's share: the same answer every time, and one that only grows with it.

    The version is hashed too, so that a client with a fixed id is not in every canary.
    """
    digest = hashlib.sha256(f"{challenger}:{request_id}".encode()).digest()
    return int.from_bytes(digest[:8]) * 100 < percent * 2**64
