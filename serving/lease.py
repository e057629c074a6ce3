"""The lease of a rollout's controller: who measures the challenger now, and whether he is still alive.

The controller raises a number, its beat, in the workspace's database every RENEW_S. Whoever depends on it watches by
his own monotonic clock whether the number moves, so neither clocks that differ nor clocks that jump matter.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sluice.core.process import is_running
from sluice.serving.database import Database

RENEW_S = 2.0
LOST_S = 8.0
"""A controller whose beat has not moved for this long is dead."""
_POLL_S = 0.2

TABLE = sa.Table(
    "sluice_controller",
    sa.MetaData(),
    sa.Column("model", sa.String(256), primary_key=True),
    sa.Column("holder", sa.String(256), nullable=False),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("shadow", sa.Boolean, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),
)

log = logging.getLogger(__name__)


class LeaseTaken(ValueError):
    """Another controller is alive; the message names it."""


class LeaseLost(RuntimeError):
    """Another controller has taken the lease, so this one must not change the release any more."""


@dataclass(frozen=True)
class LeaseRow:
    """The lease as it stands in the database."""

    holder: str
    token: str
    """Random name of this one tenure."""
    beat: int
    version: str
    """Challenger that the holder measures."""
    shadow: bool = False
    """Live requests are to be sent to the challenger, too."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """The newest decision, for status and page."""


class LeaseTable(Database):
    """The leases of all models in the database at `url`; the table is created if there is none."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.create(TABLE)

    def read(self, model: str) -> LeaseRow | None:
        """Return the lease of the model's rollout; None while no controller holds it."""
        rows = self.rows(sa.select(TABLE).where(TABLE.c.model == model))
        if not rows:
            return None
        row = {name: value for name, value in rows[0].items() if name != "model"}
        return LeaseRow(**{**row, "progress": json.loads(row["progress"])})

    def replace(self, model: str, old: LeaseRow | None, new: LeaseRow | None) -> bool:
        """Put `new` in the place of the tenure `old`; return False where another one, or a later beat, stands there."""
        is_old = TABLE.c.model == model
        if old is not None:
            # A tenure whose beat has moved on since `old` was read is alive.
            is_old &= (TABLE.c.token == old.token) & (TABLE.c.beat <= old.beat)
        values = None if new is None else {**vars(new), "progress": json.dumps(dict(new.progress))}
        with self.writing() as connection:
            if old is None:
                assert values is not None, "there is nothing to remove"
                try:
                    connection.execute(sa.insert(TABLE).values(model=model, **values))
                except IntegrityError:
                    return False
                return True
            changed = (
                sa.delete(TABLE).where(is_old) if values is None else sa.update(TABLE).where(is_old).values(values)
            )
            return connection.execute(changed).rowcount == 1


class LeaseWatch:
    """Tells by `clock` (seconds that never go back) whether the holder of the lease is alive."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[str, int] | None = None
        self._moved_at = clock()

    def is_alive(self, lease: LeaseRow | None) -> bool:
        """Return whether the beat of this lease, as it was just read, has moved within LOST_S.

        A lease that is seen for the first time counts as moved.
        """
        now = self._clock()
        seen = (lease.token, lease.beat) if lease else None
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        return lease is not None and now - self._moved_at <= LOST_S


class Lease:
    """One controller's tenure. A thread renews it; `set` changes what it tells.

    Use as a context manager: entering waits up to LOST_S and a little to tell a dead holder from one that lives, and
    raises LeaseTaken for the latter.
    """

    def __init__(self, table: LeaseTable, model: str, version: str, holder: str = "") -> None:
        self._table, self._model = table, model
        holder = holder or f"process {os.getpid()} on {socket.gethostname()}"
        self._row = LeaseRow(holder, secrets.token_hex(8), 1, version)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._lost = False
        self._tried_at = time.monotonic()
        """When the last renewal ended, whatever came of it."""
        self._thread = threading.Thread(target=self._renew_often, name="lease", daemon=True)

    @property
    def holder(self) -> str:
        return self._row.holder

    def set(self, *, shadow: bool | None = None, progress: Mapping[str, Any] | None = None) -> None:
        """Tell the present step's needs and the newest decision; written with the next beat.

        Raises LeaseLost if another controller has taken over.
        """
        changes: dict[str, Any] = {} if shadow is None else {"shadow": shadow}
        changes |= {} if progress is None else {"progress": progress}
        with self._lock:
            is_new_step = shadow not in (None, self._row.shadow)
            self._row = replace(self._row, **changes)
        # A process that was stopped for so long may have been replaced meanwhile, and must know it before it decides.
        if is_new_step or time.monotonic() - self._tried_at > LOST_S:
            self.renew()
        if self._lost:
            raise LeaseLost(f"another controller has taken over the rollout of version {self._row.version}")

    def renew(self) -> None:
        """Write the next beat, with what was set since the last one."""
        with self._lock:
            self._row = replace(self._row, beat=self._row.beat + 1)
            try:
                self._lost = not self._table.replace(self._model, self._row, self._row)
            finally:
                self._tried_at = time.monotonic()

    def pause_renewal(self) -> None:
        """Stop the thread, as a hung process would; `renew` still works."""
        self._stopping.set()
        self._thread.join()

    def __enter__(self) -> "Lease":
        watch, old = LeaseWatch(), self._table.read(self._model)
        while watch.is_alive(old) and not has_ended_here(old):
            before = old
            time.sleep(_POLL_S)
            old = self._table.read(self._model)
            if old is not None and before is not None and old.token == before.token and old.beat != before.beat:
                raise LeaseTaken(
                    f"the rollout of version {old.version} is measured by {old.holder}: wait for it, or end it by "
                    "`sluice rollout abort`"
                )
        if not self._table.replace(self._model, old, self._row):
            raise LeaseTaken(f"another controller began the rollout of version {self._row.version} first")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause_renewal()
        try:
            self._table.replace(self._model, self._row, None)
        except Exception as error:
            # The rollout has ended as it has, and the lease is soon that of a dead process.
            log.warning("the rollout's lease could not be given back: %s", error)

    def _renew_often(self) -> None:
        while not self._stopping.wait(RENEW_S) and not self._lost:
            try:
                self.renew()
            except Exception as error:
                # A database that is locked or away for a while: the traffic goes to the champion meanwhile.
                log.warning("the rollout's lease could not be renewed: %s", error)


def has_ended_here(lease: LeaseRow | None) -> bool:
    """Return whether the holder was a process of this machine that has ended, by the name that `Lease` gives it."""
    words = lease.holder.split() if lease is not None else []
    is_here = len(words) == 4 and words[3] == socket.gethostname() and words[1].isdigit()
    return is_here and not is_running(int(words[1]))
