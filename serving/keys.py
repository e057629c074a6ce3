"""Keys of the server with their roles, in the workspace's database; of a key, its sha256 alone is stored."""

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sluice.serving.auth import ROLES, WORKSPACE, Key, hash_key
from sluice.serving.database import Database, run_all

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")

TABLE = sa.Table(
    "sluice_keys",
    sa.MetaData(),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float, nullable=True),
)
# A name may be given again once its key is revoked.
_ONE_IN_FORCE = "CREATE UNIQUE INDEX IF NOT EXISTS sluice_keys_in_force ON sluice_keys (name) WHERE revoked IS NULL"


@dataclass(frozen=True)
class StoredKey:
    """A key as `sluice key list` shows it. Times are seconds since the epoch."""

    name: str
    role: str
    created: float
    revoked: float | None


class KeyTable(Database):
    """The keys in the database at `url`; the table is created if there is none.

    `clock` returns seconds since the epoch.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url)
        self._clock = clock
        self.create(TABLE, lambda connection: run_all(connection, [_ONE_IN_FORCE]))

    def issue(self, name: str, role: str) -> str:
        """Return a new key, which is stored nowhere.

        Raises ValueError for an unknown role, a name that is none, and one that has a key in force.
        """
        if role not in ROLES:
            raise ValueError(f"role {role!r} must be one of {', '.join(ROLES)}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"key name {name!r} must be 1 to 64 letters, digits, '_', '.', '@' or '-'")
        if name == WORKSPACE:
            raise ValueError(f"key name {name!r} is that of the workspace's own key: choose another")
        key = secrets.token_urlsafe(32)
        row = {"sha256": hash_key(key), "name": name, "role": role, "created": self._clock(), "revoked": None}
        try:
            with self.writing() as connection:
                connection.execute(sa.insert(TABLE).values(row))
        except IntegrityError:
            raise ValueError(f"key {name!r} exists: revoke it first (`sluice key revoke {name}`)") from None
        return key

    def revoke(self, name: str) -> None:
        """End a key for good. Raises ValueError if no key of this name is in force, or it is the workspace's own."""
        if name == WORKSPACE:
            raise ValueError(
                f"key {name!r} is the workspace's own, in .sluice/api_key: remove that file and start the server again"
            )
        in_force = (TABLE.c.name == name) & TABLE.c.revoked.is_(None)
        with self.writing() as connection:
            changed = connection.execute(sa.update(TABLE).where(in_force).values(revoked=self._clock())).rowcount
        if not changed:
            raise ValueError(f"no key {name!r} is in force; `sluice key list` shows them")

    def stored(self) -> list[StoredKey]:
        """Return all keys, revoked ones included, oldest first."""
        columns = (TABLE.c.name, TABLE.c.role, TABLE.c.created, TABLE.c.revoked)
        return [StoredKey(**row) for row in self.rows(sa.select(*columns).order_by(TABLE.c.created, TABLE.c.name))]

    def in_force(self) -> tuple[Key, ...]:
        """Return the keys that open the server."""
        query = sa.select(TABLE.c.name, TABLE.c.role, TABLE.c.sha256).where(TABLE.c.revoked.is_(None))
        return tuple(Key(**row) for row in self.rows(query.order_by(TABLE.c.created, TABLE.c.name)))
