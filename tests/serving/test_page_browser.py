"""The page in the machine's Chromium, in front of a real gateway, release, registry and ledger."""

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, expect
from ports import free_port
from release_fixtures import (  # noqa: F401
    Workspace,
    empty_database,
    released,
    released_template,
)

from benchmarks.page import find_chromium, log_in, open_chromium
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving.auth import Key, KeyRing, hash_key, workspace_key
from sluice.serving.config import ServeConfig
from sluice.serving.control import Command, Commander, CommandQueue, CommandResult, carry_out
from sluice.serving.engine.request import Finish, GenerationRequest, TokenEvent
from sluice.serving.gateway import create_app
from sluice.serving.lease import LeaseRow
from sluice.serving.ledger_chain import RecordedEntry
from sluice.serving.page import routes as page_routes
from sluice.serving.page.view import build_view
from sluice.serving.reconcile import ObservedVersions, plan_reconcile
from sluice.serving.routing import Routes, RouteTable

KEY, WATCH_KEY = "k" * 32, "w" * 32
EVIL = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
TURN_S = 0.05
WAIT_MS = 20_000
pytestmark = pytest.mark.process


class Parrot:
    """Versions that answer with the last message, as a model may that was told to."""

    async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        assert not isinstance(request.prompt, str)
        text = request.prompt[-1].content
        yield TokenEvent(text[:9], 1)
        yield TokenEvent(text[9:], 1)
        yield TokenEvent("", 0, Finish("stop", 5, 2, 0.0, 1.0, 1.0, 2.0, (), -1.0))


class Traffic:
    """Keeps nothing."""

    lost = 0

    def write(self, record: TrafficRecord) -> None:
        pass

    def close(self) -> None:
        pass


class World:
    """A gateway that follows the release of a workspace, and a browser in front of it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.url = workspace, f"http://127.0.0.1:{free_port()}"
        self.progress: dict[str, Any] | None = None
        self.releases = workspace.releases
        self.table = RouteTable()
        self.errors: list[str] = []
        """Messages of the browser's console."""
        self.keys = KeyRing([workspace_key(KEY), Key("ann", "watch", hash_key(WATCH_KEY))])
        self._commands, self._loop = CommandQueue(), asyncio.new_event_loop()
        app = create_app(Parrot(), ServeConfig(), self.keys, Traffic(), self.table, commands=self._commands)
        port = int(self.url.rpartition(":")[2])
        self._server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error"))
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._serve, self._follow)]

    page: Page

    @contextmanager
    def running(self, browser: Browser) -> Iterator["World"]:
        for thread in self._threads:
            thread.start()
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        try:
            self.page = context.new_page()
            self.page.on("console", lambda message: self.errors.append(message.text))
            self.page.on("pageerror", lambda error: self.errors.append(str(error)))
            self.page.set_default_timeout(WAIT_MS)
            while not (self._server.started and self.table.current.champion):
                assert all(thread.is_alive() for thread in self._threads), "the server ended"
            yield self
        finally:
            context.close()
            self._stopping.set()
            self._threads[1].join()
            self._server.should_exit = True
            self._threads[0].join()

    def open(self, key: str = KEY) -> Page:
        """Log in and return the page."""
        log_in(self.page, self.url, key)
        return self.page

    def press(self, name: str) -> Locator:
        """Press a button and return the dialog that asks."""
        self.page.get_by_role("group", name="Control").get_by_role("button", name=name, exact=True).click()
        dialog = self.page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        return dialog

    def confirm(self, name: str, reason: str) -> None:
        """Press a button, give the reason, and wait until it was done."""
        dialog = self.press(name)
        dialog.get_by_label("Reason").fill(reason)
        dialog.get_by_role("button", name=name, exact=True).click()
        expect(dialog).to_be_hidden()

    def newest(self) -> RecordedEntry:
        return self.releases.newest(1)[0]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve())
        self._loop.close()

    def _follow(self) -> None:
        """The reconciler's turns, with every version that is wanted ready at once."""
        releases, routes, viewed = self.workspace.releases, Routes(), None
        commander = Commander(lambda command: carry_out(releases, command))
        while not self._stopping.wait(TURN_S):
            release = releases.state()
            wanted = {release.champion, release.challenger, release.previous_champion} - {None}
            routes = plan_reconcile(release, ObservedVersions(ready=wanted), routes).routes
            if viewed is None or viewed[:2] != (release.sequence, self.progress):
                lease = LeaseRow("a test", "t", 1, "3", progress=self.progress) if self.progress else None
                viewed = release.sequence, self.progress, build_view(releases, lease)
            if self._server.started and not self._stopping.is_set():
                pushed = self._push(replace(routes, view=viewed[2]), commander.results())
                commander.begin(asyncio.run_coroutine_threadsafe(pushed, self._loop).result(WAIT_MS / 1e3))
        commander.stop()

    async def _push(self, routes: Routes, results: list[CommandResult]) -> list[Command]:
        """Do on the gateway's loop as its replica does with a push."""
        self.table.current = routes
        self._commands.finish(results)
        return self._commands.pending()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("there is no Chromium on this machine: apt install chromium")
    with open_chromium() as found:
        yield found


@pytest.fixture
def world(browser: Browser, released: Workspace) -> Iterator[World]:  # noqa: F811
    """Version 2 is champion, 1 was before, 3 is in rollout at 5 %."""
    released.propose("3")
    released.releases.set_weight(5)
    with World(released).running(browser) as world:
        yield world
        assert world.errors == []


PROGRESS = {
    "version": "3",
    "step": 1,
    "steps": [{"weight": 0, "shadow": True}, {"weight": 5}, {"weight": 100}, {"weight": 100}],
    "reason": "challenger at 5 %: 2 of 10 live challenger requests",
    "checks": [
        {
            "metric": "error_rate",
            "outcome": "pass",
            "value": 0.004,
            "bound": 0.02,
            "n": 250,
            "e_advance": 31.5,
            "e_drop": 0.02,
            "threshold": 20.0,
        }
    ],
    "replays": 250,
    "live": 2,
    "not_judged": {},
    "paused": False,
}


def test_a_key_opens_the_page_and_log_out_closes_it(world: World) -> None:
    page = world.page
    page.goto(f"{world.url}/")
    expect(page).to_have_url(f"{world.url}/login")
    page.get_by_label("Key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this key")
    world.errors.clear()
    world.open()
    expect(page.get_by_text("serving", exact=True)).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{world.url}/login")
    page.goto(f"{world.url}/")
    expect(page).to_have_url(f"{world.url}/login")


def test_the_page_follows_the_release_without_a_reload(world: World) -> None:
    page = world.open()
    page.evaluate("window.isSame = true")
    traffic = page.get_by_role("table", name="The challenger's share of the live traffic")
    expect(traffic).to_contain_text("5 %")
    world.progress = PROGRESS
    steps = page.get_by_role("list", name="Steps")
    expect(steps.locator("[aria-current=step]")).to_contain_text("5 %")
    expect(steps.get_by_role("listitem")).to_have_text(
        [re.compile(name) for name in ("shadow", "5 %", "100 %", "bake")]
    )
    signals = page.get_by_role("table", name="Evidence by signal")
    expect(signals.get_by_role("row", name="Errors")).to_contain_text("31.5")
    world.releases.set_weight(25, "the evidence lets it advance")
    expect(traffic).to_contain_text("25 %")
    expect(page.get_by_role("table", name="The last entries of the ledger").get_by_role("row").nth(1)).to_contain_text(
        "the evidence lets it advance"
    )
    expect(page.locator("#announcement")).to_contain_text("25 % of the traffic")
    world.releases.drop("it failed")
    expect(page.get_by_text("No rollout is in progress.").first).to_be_visible()
    expect(page.get_by_role("button", name="Abort")).to_be_disabled()
    assert page.evaluate("window.isSame")


def test_a_stream_that_ended_is_opened_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_routes, "MAX_STREAM_S", 0.1)
    page = world.open()
    for weight in (25, 50):
        world.releases.set_weight(weight)
        expect(page.locator("#traffic")).to_contain_text(f"{weight} %")
    expect(page.locator("#connection")).to_be_hidden()


def test_promote_asks_first_and_is_marked_by_hand(world: World) -> None:
    page = world.open()
    before = world.newest()
    dialog = world.press("Promote")
    expect(dialog).to_contain_text("Promote v3 by hand?")
    expect(dialog).to_contain_text("for ever")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Promote")).to_be_focused()
    dialog = world.press("Promote")
    dialog.get_by_label("Reason").fill("   ")
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Give a reason")
    assert world.newest() == before
    dialog.get_by_label("Reason").fill("the demo is today")
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog).to_be_hidden()
    entry = world.newest()
    assert (entry.action, entry.version, entry.actor, entry.reason) == (
        "promote",
        "3",
        "key:workspace",
        "the demo is today",
    )
    assert entry.details["by_hand"]
    expect(page.get_by_role("row", name="v3 champion")).to_contain_text("by hand: the demo is today")
    expect(page.get_by_role("list", name="Needs attention")).to_contain_text("by hand: the demo is today")


def test_abort_by_keyboard_alone(world: World) -> None:
    page = world.open()
    page.get_by_role("heading", name="sluice").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "action-abort":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Abort the rollout of v3?")).to_be_visible()
    page.keyboard.type("it answers nonsense")
    for _ in range(3):
        # The focus stays in the dialog, whatever is behind it.
        page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("dialog").get_by_role("button", name="Abort").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    entry = world.newest()
    assert (entry.action, entry.version, entry.reason) == ("drop", "3", "it answers nonsense")
    expect(page.get_by_text("The champion has all live traffic.")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()


def test_pause_and_resume(world: World) -> None:
    page = world.open()
    world.confirm("Pause", "lunch")
    expect(page.locator("#rollout")).to_contain_text("paused until resumed")
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    assert world.releases.state().paused
    world.confirm("Resume", "back")
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()
    assert not world.releases.state().paused


def test_roll_back_to_a_version_that_one_chooses(world: World) -> None:
    world.releases.promote("the rollout went well")
    page = world.open()
    dialog = world.press("Roll back")
    expect(dialog.get_by_label("Version to serve").get_by_role("option")).to_have_text(["v2", "v1"])
    dialog.get_by_label("Version to serve").select_option("1")
    dialog.get_by_label("Reason").fill("both later ones fail")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("row", name="v1 champion")).to_be_visible()
    entry = world.newest()
    assert (entry.action, entry.version, entry.details["to"]) == ("rollback", "3", "1")


def test_what_the_server_refuses_is_said_in_the_dialog(world: World) -> None:
    """Another person was faster: the page still acts on the version that it showed."""
    page = world.open()
    dialog = world.press("Promote")
    world.releases.drop("somebody else was faster")
    expect(page.get_by_text("No rollout is in progress.").first).to_be_visible()
    dialog.get_by_label("Reason").fill("too late")
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog.get_by_role("alert")).to_contain_text("there is no challenger")
    assert world.newest().action == "drop"
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert [text for text in world.errors if "409" not in text] == []
    world.errors.clear()


def test_a_key_that_may_watch_sees_all_and_changes_nothing(world: World) -> None:
    page = world.open(WATCH_KEY)
    expect(page.get_by_text("ann (watch)")).to_be_visible()
    for name in ("Pause", "Promote", "Abort", "Roll back"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    before = world.newest()
    # Also for who takes the page's token by hand.
    refused = page.evaluate(
        """async () => (await (await fetch("/admin/rollout/abort", {
          method: "POST", body: '{"reason": "x"}',
          headers: {"x-sluice-csrf": document.querySelector("meta[name=csrf]").content}
        })).json()).error.code"""
    )
    assert refused == "insufficient_role"
    world.errors.clear()
    world.releases.set_weight(25)
    expect(page.locator("#traffic")).to_contain_text("25 %")
    expect(page.get_by_role("button", name="Abort")).to_be_disabled()
    assert [before.sequence + 1] == [world.newest().sequence]


def test_a_revoked_key_closes_the_page(world: World) -> None:
    page = world.open(WATCH_KEY)
    world.keys.current = world.keys.current[:1]
    expect(page).to_have_url(f"{world.url}/login")


def test_the_chat_streams_and_names_the_version(world: World) -> None:
    page = world.open()
    page.get_by_label("Message").fill("Who answers, and how long?")
    page.keyboard.press("Enter")
    talk = page.get_by_role("log", name="Conversation")
    expect(talk.locator(".turn.model")).to_have_text(
        re.compile("^Who answers, and how long.v[23], (champion|challenger)$")
    )
    expect(page.get_by_label("Message")).to_be_focused()
    expect(page.get_by_role("table", name="Requests since the gateway began")).to_contain_text(" 1 ")


def test_no_text_becomes_markup(world: World) -> None:
    """Neither an answer, nor a reason, nor what a version is said to be."""
    world.releases.set_weight(25, EVIL)
    world.progress = {**PROGRESS, "reason": EVIL, "not_judged": {EVIL: 1}}
    page = world.open()
    page.get_by_label("Message").fill(EVIL)
    page.keyboard.press("Enter")
    expect(page.locator(".turn.model")).to_contain_text(EVIL)
    expect(page.locator("#rollout")).to_contain_text(EVIL)
    expect(page.locator("#entries")).to_contain_text(EVIL)
    world.confirm("Abort", EVIL)
    expect(page.locator("#entries").get_by_role("row").nth(1)).to_contain_text(EVIL)
    assert page.locator("img").count() == 0 and page.locator("main script").count() == 0
    assert page.title() == "sluice: release"


class Attacker(BaseHTTPRequestHandler):
    """A page on another port of this machine, which is the same site to a browser, so that the cookie is sent."""

    target = ""

    def do_GET(self) -> None:
        form = f'<form method=post action="{self.target}" enctype=text/plain><input name=x></form>'
        body = f"<!doctype html>{form}<script>document.forms[0].submit()</script>".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("path", ["/admin/rollout/abort", "/logout"])
def test_another_page_cannot_act_with_the_log_in(world: World, path: str) -> None:
    page = world.open()
    before = world.newest()
    handler = type("Handler", (Attacker,), {"target": world.url + path})
    with ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as attacker:
        thread = threading.Thread(target=attacker.serve_forever)
        thread.start()
        with page.expect_response(lambda answer: answer.url == world.url + path) as found:
            page.goto(f"http://127.0.0.1:{attacker.server_port}/")
        attacker.shutdown()
        thread.join()
    assert "cookie" in found.value.request.all_headers()
    assert (found.value.status, found.value.json()["error"]["code"]) == (403, "invalid_csrf_token")
    assert world.newest() == before
    page.goto(world.url)
    expect(page.get_by_role("heading", name="Live traffic")).to_be_visible()
    world.errors.clear()


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = color => {
    const [r, g, b] = color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("button:disabled, svg, .unseen")) continue;
    let behind = node;
    const back = () => getComputedStyle(behind).backgroundColor;
    while (rgba(back())[3] < 255 && behind.parentElement) behind = behind.parentElement;
    const [a, b] = [getComputedStyle(node).color, back()].map(rgba).map(luminance);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.className} "${node.textContent.trim().slice(0, 30)}" ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(world: World, scheme: Any) -> None:
    world.page.emulate_media(color_scheme=scheme)
    world.progress = PROGRESS
    page = world.open()
    expect(page.get_by_role("table", name="Evidence by signal")).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    world.press("Promote")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 820, 1280])
def test_the_page_fits_every_width(world: World, width: int) -> None:
    """Tables scroll in themselves, not the page (WCAG 1.4.10)."""
    world.page.set_viewport_size({"width": width, "height": 800})
    world.progress = PROGRESS
    world.releases.set_weight(25, "a-reason-without-a-space-" * 20)
    page = world.open()
    expect(page.get_by_role("table", name="Evidence by signal")).to_be_attached()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_a_screen_reader_finds_its_way(world: World) -> None:
    world.progress = PROGRESS
    page = world.open()
    expect(page.get_by_role("table", name="Evidence by signal")).to_be_attached()
    sections = ["Live traffic", "Control", "Rollout", "Versions", "Chat", "Verdict of the gate", "Drift and alerts"]
    for name in (*sections, "Ledger, newest first"):
        expect(page.get_by_role("region", name=name, exact=True).first).to_be_visible()
    assert page.locator("main, header").count() == 2
    unnamed = """() => [...document.querySelectorAll("button, input, select, textarea, table, dialog")]
      .filter(node => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.labels?.length
        || node.caption || node.textContent.trim() || node.id === "do")).map(node => node.outerHTML)"""
    assert page.evaluate(unnamed) == []
    assert page.evaluate("document.querySelectorAll('svg:not([aria-hidden=true])').length") == 0
    assert page.locator("html[lang=en]").count() == 1
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the release")).to_be_focused()
