"""The workspace's registry, ledger and server, opened for the steps and commands that release."""

import getpass
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from sluice.components.params import load_block
from sluice.components.workspace import Workspace
from sluice.serving.config import RegisterConfig, RolloutConfig, ServeConfig
from sluice.serving.keys import KeyTable
from sluice.serving.lease import LeaseTable
from sluice.serving.ledger import Ledger, ledger_models
from sluice.serving.ledger_table import MAX_ACTOR
from sluice.serving.ledger_trust import LedgerTrust
from sluice.serving.registry import Registry
from sluice.serving.release import VerdictRequirements
from sluice.serving.releases import Releases

if TYPE_CHECKING:
    from sluice.serving.ray_serve.server import Server


def open_ledger(workspace: Workspace, model_name: str | None = None) -> Ledger:
    """The ledger of a registered model, by default of the one that the settings name."""
    workspace.state.mkdir(parents=True, exist_ok=True)
    name = model_name or load_block(workspace, RegisterConfig).model_name
    return Ledger(workspace.database_url, name, LedgerTrust(workspace.ledger_trust))


def open_ledgers(workspace: Workspace) -> list[Ledger]:
    """The ledgers of all models in the workspace's database."""
    return [open_ledger(workspace, name) for name in ledger_models(workspace.database_url)]


def open_registry(workspace: Workspace) -> Registry:
    workspace.state.mkdir(parents=True, exist_ok=True)
    return Registry(
        workspace.database_url, workspace.registry_artifacts, load_block(workspace, RegisterConfig).model_name
    )


def open_releases(workspace: Workspace, actor: str | None = None) -> Releases:
    """The workspace's release; `actor` is written into its entries, by default who runs this process."""

    def requirements() -> VerdictRequirements:
        from sluice.components.evidence import sets_in_force

        return VerdictRequirements(load_block(workspace, RolloutConfig).max_verdict_age_days, sets_in_force(workspace))

    registry, ledger = open_registry(workspace), open_ledger(workspace)
    return Releases(registry, ledger, workspace.keys, actor=actor or who(), requirements=requirements)


def account() -> str:
    """Name of the account that runs this process; in a container, a user id may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def who() -> str:
    """Return `user@host` of this process, as the ledger names an actor."""
    return f"{account()}@{socket.gethostname()}".encode(errors="replace").decode()[:MAX_ACTOR]


def open_keys(workspace: Workspace) -> KeyTable:
    """The keys of the workspace's server."""
    workspace.state.mkdir(parents=True, exist_ok=True)
    return KeyTable(workspace.database_url)


def server_ready(workspace: Workspace) -> Callable[[str], bool] | None:
    """Return the check of a rollback's target on the running server; None where none answers.

    The check has the server load a version that it has not, and raises ValueError with the reason for which it cannot.
    """
    import httpx

    from sluice.serving.client import ServerError, find_server

    client = find_server(workspace.state)
    if client is None:
        return None

    def ready(version: str) -> bool:
        try:
            if version not in client.state()["ready"]:
                client.load(version)
        except httpx.ConnectError:
            # It has ended meanwhile: the next one follows the ledger.
            return True
        except (ServerError, httpx.HTTPError) as error:
            raise ValueError(f"the server at {client.url} did not load it: {error}") from error
        return True

    return ready


def make_server(workspace: Workspace, config: ServeConfig) -> "Server":
    """The workspace's server, not yet started. Importing it takes seconds, so it is imported here."""
    from sluice.serving.ray_serve.server import Server

    releases, leases = open_releases(workspace), LeaseTable(workspace.database_url)
    model = load_block(workspace, RegisterConfig).model_name
    return Server(
        releases,
        releases.model_folder,
        config,
        state_folder=workspace.state,
        key=workspace.api_key(),
        stored_keys=open_keys(workspace).in_force,
        read_lease=lambda: leases.read(model),
        salt=workspace.salt(),
    )
