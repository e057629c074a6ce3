"""Ports for the servers that tests start."""

import itertools
import os
import socket

_FIRST, _END = 20_000, 32_000
"""Above those of Ray's workers, below those that systems give to the near end of a connection: a port from there that
is free now may be such an end by the time the server starts.
"""
_counted = itertools.count(os.getpid() * 997)
"""Far apart for processes that pytest starts one after the other."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, another one at each call."""
    for number in itertools.islice(_counted, _END - _FIRST):
        port = _FIRST + number % (_END - _FIRST)
        with socket.socket() as probe:
            # As servers do: a connection that has just ended on the port is no listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {_FIRST} to {_END} is free")
