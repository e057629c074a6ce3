"""Readiness of the champion: why none answers, and which command leads out. Pure: a function of the routes."""

from dataclasses import dataclass

from sluice.serving.routing import Routes

SOON_S, LATER_S = 1, 30
"""Seconds after which a client may try again: while a version is being loaded, and if somebody has to act first."""


@dataclass(frozen=True)
class Outage:
    """Why no champion answers."""

    reason: str
    """One clause for everybody, without paths."""
    detail: str = ""
    """Message of the failed load or read; only for those who have the key."""
    next_step: str = ""
    retry_after_s: int = LATER_S

    @property
    def message(self) -> str:
        return "; ".join(filter(None, (": ".join(filter(None, (self.reason, self.detail))), self.next_step)))


def find_outage(routes: Routes) -> Outage | None:
    """Return why no champion answers; None if one does."""
    if routes.champion:
        return None
    if routes.error:
        return Outage("the release cannot be followed", routes.error, "`sluice status` shows the ledger")
    if not routes.release:
        return Outage("the server is starting", next_step="try again shortly", retry_after_s=SOON_S)
    champion = routes.release["champion"]
    if champion is None:
        return Outage("no version has been promoted yet", next_step="run `sluice run`, or `sluice promote`")
    if champion in routes.slow:
        next_step = "`sluice doctor` shows whether memory or processors are short"
        return Outage(f"version {champion} is still being loaded", routes.slow[champion], next_step)
    if champion not in routes.deploy_errors:
        return Outage(f"version {champion} is being loaded", next_step="try again shortly", retry_after_s=SOON_S)
    previous, earlier = routes.release["previous_champion"], routes.release["earlier_champions"]
    if previous and previous not in routes.deploy_errors:
        next_step = f"version {previous} is being loaded in its place; `sluice rollback` makes it the champion"
    elif earlier:
        next_step = f"restore its files, or run `sluice rollback --to {earlier[-1]}`"
    else:
        next_step = "restore its files, or release another version by `sluice run`"
    return Outage(f"version {champion} cannot be loaded", routes.deploy_errors[champion], next_step)
