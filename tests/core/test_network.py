"""The check that a server can be reached answers within seconds, whatever hangs."""

import socket
from threading import Event

import pytest

from sluice.core.network import connection_fault


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.core.network.getproxies", dict)


def test_a_server_that_listens_has_no_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert connection_fault(f"http://127.0.0.1:{server.getsockname()[1]}/path") is None


def test_a_refusal_and_a_name_that_nobody_knows_are_told() -> None:
    assert connection_fault("http://127.0.0.1:9") == "127.0.0.1: Connection refused"
    assert str(connection_fault("https://no.such.host.invalid")).startswith("no.such.host.invalid: ")


def test_what_is_no_name_or_port_is_told_at_once() -> None:
    assert "label" in str(connection_fault(f"https://{'a' * 64}.example"))
    assert str(connection_fault("http://127.0.0.1:abc")).startswith("127.0.0.1: Port could not be cast")


def test_the_look_up_of_a_name_is_waited_for_no_longer_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Event()

    def hang(*_: object, **__: object) -> None:
        ended.wait()
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", hang)
    assert connection_fault("https://host.example", 0.05) == "host.example does not answer within 0.05 s"
    ended.set()


def test_the_proxy_is_tried_in_place_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.core.network.getproxies", lambda: {"https": "http://127.0.0.1:9"})
    monkeypatch.setattr("sluice.core.network.proxy_bypass", lambda host: host == "inside.example")
    assert connection_fault("https://host.example") == "127.0.0.1: Connection refused"
    assert str(connection_fault("https://inside.example.invalid")).startswith("127.0.0.1: ")
