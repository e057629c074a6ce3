"""Log-ins of the page. A browser sends no header on navigation, so a key is exchanged for a cookie.

Nothing is stored: the cookie names the key and carries an HMAC under its hash and that of the workspace's own key. So
it ends with the key, also where another one gets the same name, and outlives a restart of the gateway; and the hashes
in the database, without the workspace's key, make no cookie.
"""

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

COOKIE = "sluice_session"
CSRF_HEADER = "x-sluice-csrf"
"""Header with the page's token, which every request with the cookie that is not a GET needs."""
LIFETIME_S = 12 * 3600
_COOKIE = re.compile(r"([A-Za-z0-9_=-]{1,400})\.(\d{1,12})\.([0-9a-f]{64})")


class KnownKey(Protocol):
    """A key that opens the gateway."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Viewer:
    """A key that is logged in."""

    name: str
    """Name of the key."""
    role: str
    csrf: str
    """Token that shows that a request comes from the page."""


class Sessions:
    """Cookies for keys. `keys` returns those in force, the workspace's own first; `clock` returns epoch seconds."""

    def __init__(self, keys: Callable[[], Iterable[KnownKey]], clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = keys, clock

    def log_in(self, key: str) -> str | None:
        """Return the cookie's value for a key; None if no such key is in force."""
        given = hashlib.sha256(key.strip().encode()).hexdigest()
        # All keys are compared, each in constant time, so that timing reveals nothing.
        found = [known for known in self._keys() if hmac.compare_digest(known.sha256, given)]
        if not found:
            return None
        name, issued = urlsafe_b64encode(found[0].name.encode()).decode(), str(int(self._clock()))
        return f"{name}.{issued}.{self._mac(found[0], f'session:{name}.{issued}')}"

    def viewer(self, cookie: str) -> Viewer | None:
        """Return who logged in with this cookie; None if it is forged, too old, or its key no longer in force."""
        parts = _COOKIE.fullmatch(cookie)
        if parts is None or not 0 <= self._clock() - int(parts[2]) <= LIFETIME_S:
            return None
        try:
            name = urlsafe_b64decode(parts[1]).decode()
        except ValueError:
            return None
        for known in self._keys():
            expected = self._mac(known, f"session:{parts[1]}.{parts[2]}")
            if known.name == name and hmac.compare_digest(expected, parts[3]):
                return Viewer(known.name, known.role, self._mac(known, f"csrf:{cookie}"))
        return None

    def may_post(self, cookie: str, token: str) -> bool:
        """Return whether a request with this cookie, which is not a GET, carries the page's token."""
        viewer = self.viewer(cookie)
        return viewer is not None and hmac.compare_digest(viewer.csrf.encode(), token.encode())

    def is_in_force(self, key: KnownKey) -> bool:
        """Return whether a key still opens the gateway, in its role."""
        return any((known.sha256, known.role) == (key.sha256, key.role) for known in self._keys())

    def _mac(self, key: KnownKey, text: str) -> str:
        own = next(iter(self._keys()))
        return hmac.digest(f"{own.sha256}{key.sha256}".encode(), text.encode(), "sha256").hex()
