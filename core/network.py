"""Check that a server can be reached at all, before a client library tries again and again."""

import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_S = 5.0


def connection_fault(url: str, timeout_s: float = CONNECT_S) -> str | None:
    """Return why nothing can connect to the server of `url`, or None where it accepts connections.

    Where the environment names a proxy for it, the proxy is tried instead.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if proxy:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host = parts.hostname or ""
    found: Future[str | None] = Future()

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((host, port), timeout=timeout_s).close()
        except (OSError, ValueError) as error:  # the latter for what is no name or port
            found.set_result(f"{host}: {getattr(error, 'strerror', None) or error}")
        else:
            found.set_result(None)

    # In a thread, because looking up a name has no time limit of its own.
    threading.Thread(target=connect, name="connection_fault", daemon=True).start()
    try:
        return found.result(timeout_s)
    except NotYet:
        return f"{host} does not answer within {timeout_s:g} s"
