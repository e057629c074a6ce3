"""HTTP client of the server, for commands, the rollout and scripts."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sluice.core.process import is_running
from sluice.serving.control import COMMAND_TIMEOUT_S

if TYPE_CHECKING:  # these import the ledger, which most commands do not need
    from sluice.model.evaluation.evaluated import AnswerRequest
    from sluice.monitoring.traffic.classify import AttemptClass
    from sluice.serving.control import Action
    from sluice.serving.measurements import Measurements
    from sluice.serving.rollout import Completion
    from sluice.serving.routing import Arm, TrafficSource

SERVER_VARIABLE = "SLUICE_SERVER"
"""Environment variable with the address of a server on another machine, such as http://serving-rollout.sluice.svc:8000."""
PROBE_TIMEOUT_S = 3.0
POLL_S = 0.1


class ServerError(RuntimeError):
    """The server refused or failed a request; the message is the server's."""


class Client:
    """Client of one server. Threads may share it; every call is bounded by `timeout_s`."""

    def __init__(self, url: str, key: str, timeout_s: float = 120.0) -> None:
        self.url = url
        # trust_env=False: proxies of the environment do not apply.
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)

    def answers(self) -> bool:
        """Return whether a gateway that accepts the key answers."""
        try:
            return self._http.get("/v1/models", timeout=PROBE_TIMEOUT_S).status_code == 200
        except httpx.HTTPError:
            return False

    def chat(self, messages: Sequence[Mapping[str, str]], *, stream: bool = True, **fields: Any) -> Iterator[str]:
        """Yield the answer to a conversation as it is generated, or at once if it does not stream.

        `fields` are further fields of OpenAI's API. Raises ServerError.
        """
        body = {"messages": [dict(message) for message in messages], "stream": stream, **fields}
        with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200 or not stream:
                response.read()
                yield _checked(response)["choices"][0]["message"]["content"]
                return
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise ServerError(chunk["error"]["message"])
                    for choice in chunk["choices"]:
                        yield choice["delta"].get("content", "")

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: "TrafficSource" = "replay", arm: "Arm | None" = None
    ) -> "Completion":
        """Return one completion, routed by weight or pinned to an arm. Errors are in `status`, not raised."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "seed": seed}
        return self._completion("/v1/completions", body, source, arm)

    def ask(self, request: "AnswerRequest", arm: "Arm", source: "TrafficSource" = "replay") -> "Completion":
        """Return an arm's answer to a request of an evaluation. Errors are in `status`, not raised."""
        body: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            # The API takes four; the caller cuts at the others.
            "stop": list(request.stop[:4]),
        }
        if isinstance(request.prompt, str):
            return self._completion("/v1/completions", body | {"prompt": request.prompt}, source, arm)
        messages = [asdict(message) for message in request.prompt]
        return self._completion("/v1/chat/completions", body | {"messages": messages}, source, arm)

    def _completion(self, path: str, body: dict[str, Any], source: "TrafficSource", arm: "Arm | None") -> "Completion":
        from sluice.serving.rollout import Completion

        headers = {"x-sluice-source": source} | ({"x-sluice-arm": arm} if arm else {})
        started = time.perf_counter()
        response = self._http.post(path, json=body, headers=headers)
        total_ms = 1e3 * (time.perf_counter() - started)
        # Durations in ms, such as `first;dur=3.1, total;dur=9`.
        parts = [part.partition(";dur=") for part in response.headers.get("server-timing", "").split(",")]
        timing = {name.strip(): float(value) for name, _, value in parts if value}
        choice: dict[str, Any] = response.json()["choices"][0] if response.status_code == 200 else {}
        fell_back = "x-sluice-fell-back" in response.headers
        return Completion(
            version=response.headers.get("x-sluice-version", ""),
            arm=response.headers.get("x-sluice-arm", ""),
            status=response.status_code,
            text=choice.get("text", choice.get("message", {}).get("content", "")),
            finish_reason=choice.get("finish_reason", ""),
            attempt_class=_attempt_class(response, fell_back),
            first_token_ms=timing.get("first", math.nan) - timing.get("queue", 0.0),
            per_token_ms=timing.get("token"),
            total_ms=total_ms,
            fell_back=fell_back,
        )

    def measurements(self, version: str) -> "Measurements":
        """Return the gateway's totals of a version."""
        from sluice.serving.measurements import Measurements

        found = _checked(self._http.get("/admin/measurements", params={"version": version}))
        return Measurements(found["version"], found["gateway_id"], found["counts"], found.get("votes", {}))

    def shadow(self, after: int) -> dict[str, Any]:
        """Return {"pairs": shadow requests' answers with `n` above `after`, "last": n, "skipped": n, "in_flight": n}.

        At most 100 pairs come at once. A `last` below `after` means that the gateway began anew.
        """
        return dict(_checked(self._http.get("/admin/shadow", params={"after": after})))

    def vote(self, request_id: str, score: int, comment: str = "") -> None:
        """Vote on an answer: 1 good, -1 bad, 0 neither. Raises ServerError for an unknown request or a second vote."""
        body = {"request_id": request_id, "score": score, "comment": comment}
        _checked(self._http.post("/v1/feedback", json=body))

    def state(self) -> dict[str, Any]:
        """Return the routes in force, loaded versions, load errors and counts by version."""
        return _checked(self._http.get("/admin/state"))

    def control(
        self, action: "Action", reason: str, version: str | None = None, to: str | None = None
    ) -> dict[str, Any]:
        """Have the server change the release; return the release state afterwards.

        `version` is the one that the caller expects to act on. Raises ServerError with the reason of a refusal.
        """
        path = action if action in ("rollback", "load") else f"rollout/{action}"
        body = {"reason": reason, "version": version, "to": to}
        response = self._http.post(f"/admin/{path}", json=body, timeout=COMMAND_TIMEOUT_S + PROBE_TIMEOUT_S)
        return dict(_checked(response)["state"])

    def load(self, version: str) -> None:
        """Have the server load a version, as for a rollback to it. Raises ServerError with the reason if it cannot."""
        self.control("load", "", version)

    def outage(self) -> str:
        """Return why no champion answers, and what leads out; empty if one does."""
        from sluice.serving.readiness import find_outage
        from sluice.serving.routing import Routes

        state = self.state()
        found = find_outage(Routes(**{each.name: state[each.name] for each in fields(Routes) if each.name in state}))
        return found.message if found else ""

    def wait_for_champion(self, version: str, timeout_s: float = 60.0) -> None:
        """Wait until `version` answers as the champion; TimeoutError names the version that does instead."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state())["champion"] != version:
            if time.monotonic() > deadline:
                error = state["deploy_errors"].get(version) or state["error"] or "it is still being loaded"
                raise TimeoutError(
                    f"version {version} did not become champion within {timeout_s:.0f} s, "
                    f"version {state['champion']} answers: {error}"
                )
            time.sleep(POLL_S)


def server_file(state_folder: Path) -> Path:
    """Path of the file in which a running server publishes {"id", "host", "pid", "url", "started", "state_folder"}."""
    return state_folder / "server.json"


def find_server(state_folder: Path, key: str | None = None) -> Client | None:
    """Return a client of the server at SLUICE_SERVER, else of this machine's server of the workspace, if it answers.

    The key is `key`, else SLUICE_API_KEY, else the one in the state folder.
    """
    try:
        key = key or os.environ.get("SLUICE_API_KEY") or (state_folder / "api_key").read_text().strip()
        if not key:
            return None
        if address := os.environ.get(SERVER_VARIABLE):
            client = Client(address, key)
            return client if client.answers() else None
        found = json.loads(server_file(state_folder).read_text())
        url, pid, host = str(found["url"]), int(found["pid"]), str(found["host"])
        place = Path(found["state_folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A file whose process is gone was left by a killed server; one that names another folder came with a copy of the
    # workspace. Another machine's server is at no address of this one, and its process has another's number here.
    is_here = host == socket.gethostname() and place == state_folder.resolve() and is_running(pid)
    client = Client(url, key)
    return client if is_here and client.answers() else None


def wait_for_server(state_folder: Path, timeout_s: float) -> Client:
    """Return a client of the server at SLUICE_SERVER once it answers; TimeoutError names the address."""
    deadline = time.monotonic() + timeout_s
    while (client := find_server(state_folder)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{SERVER_VARIABLE}={os.environ.get(SERVER_VARIABLE)}: no server answered there within "
                f"{timeout_s:.0f} s with this key: start it (`sluice serve --wait`), or correct the address or "
                "SLUICE_API_KEY"
            )
        time.sleep(POLL_S)
    return client


def server_elsewhere(state_folder: Path) -> str | None:
    """Return the name of another machine whose server has published itself in this workspace."""
    try:
        found = json.loads(server_file(state_folder).read_text())
        host, place = str(found["host"]), Path(found["state_folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # One that names another folder came with a copy of the workspace.
    return host if host != socket.gethostname() and place == state_folder.resolve() else None


def _checked(response: httpx.Response) -> Any:
    if response.status_code != 200:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:200]
        raise ServerError(f"{response.status_code}: {message}")
    return response.json()


def _attempt_class(response: httpx.Response, fell_back: bool) -> "AttemptClass":
    """Return the class of the first attempt; where a proxy answered, the one that the status alone tells."""
    from sluice.monitoring.traffic.classify import CLASSES, classify

    told = response.headers.get("x-sluice-attempt-class")
    if found := next((name for name in CLASSES if name == told), None):
        return found
    if fell_back:
        return "model_fault"
    unknown = {"first_token_ms": None, "wait_ms": None, "queue_ms": None}
    return classify(response.status_code, "", **unknown, objective_ms=math.inf)
