"""A run as the terminal shows it: a bar a step with its time left, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

_PACE_S = 3600.0
"""Window over which a bar's pace is averaged."""
_LEAST_DONE, _LEAST_SHARE = 3, 0.05
_NARROW = 80
"""Columns of a terminal below which bars are short."""
STATES = {"start": "running", "done": "done", "failed": "failed"}


class View(Protocol):
    """Shows events as they come."""

    def show(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def open_view(steps: tuple[str, ...]) -> View:
    return BarView(steps) if sys.stdout.isatty() else LineView()


def tells_pace(done: float, total: float) -> bool:
    """Return whether `done` units since the first progress tell how long the rest takes: the first are the slowest."""
    return done >= max(_LEAST_DONE, total * _LEAST_SHARE)


class LineView:
    """One line when a step starts and ends, and one every ten seconds in between."""

    seconds_between = 10.0

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}

    def show(self, event: dict[str, Any]) -> None:
        step, kind, now = event["step"], event["kind"], event["time"]
        if kind == "start":
            self._started[step] = now
            self._shown[step] = now
            print(f"{step:<10} started", flush=True)
        elif kind == "progress" and now - self._shown.get(step, 0.0) >= self.seconds_between:
            # By the pace since the first progress: starting workers says nothing of how fast they work.
            since, before = self._first.setdefault(step, (now, event["done"]))
            self._shown[step] = now
            done, to_do = event["done"] - before, event["total"] - event["done"]
            is_told = to_do > 0 and tells_pace(done, event["total"])
            left = f", about {(now - since) * to_do / done:.0f} s left" if is_told else ""
            print(f"{step:<10} {event['done']}/{event['total']} {event['note']}{left}", flush=True)
        elif kind == "note":
            print(f"{step:<10} {event['message']}", flush=True)
        elif kind == "done":
            print(f"{step:<10} {ending(event)} in {now - self._started.get(step, now):.1f} s", flush=True)

    def close(self) -> None:
        sys.stdout.flush()


class NoteView:
    """Prints notes alone, on stderr: standard output is for the result."""

    def show(self, event: dict[str, Any]) -> None:
        if event["kind"] == "note":
            print(f"{event['step']:<10} {event['message']}", file=sys.stderr, flush=True)

    def close(self) -> None:
        sys.stderr.flush()


class BarView:
    """Rich's live bars, one a step that has begun. Time is left by the pace since the first progress, as in lines."""

    def __init__(
        self, steps: tuple[str, ...], clock: Callable[[], float] = time.monotonic, console: "Console | None" = None
    ) -> None:
        from rich import get_console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            Task,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column
        from rich.text import Text

        class TimeLeft(TimeRemainingColumn):
            """The remaining time once the pace tells it."""

            def render(self, task: Task) -> Text:
                done = task.completed - (task.fields["first"] or 0)
                return super().render(task) if tells_pace(done, task.total or 0) else Text("-:--:--")

        console = console or get_console()
        fixed = Column(no_wrap=True)
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[number]:>5} {task.description:<10}"),
            BarColumn(bar_width=24 if console.width >= _NARROW else 10, table_column=fixed),
            TaskProgressColumn(table_column=fixed),
            TimeElapsedColumn(table_column=fixed),
            TimeLeft(table_column=fixed),
            # Gets what is left of the line: a long note must not push the bar off it.
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            expand=True,
            # Rich forgets progress after 30 s, and where it comes more rarely there would be no pace.
            speed_estimate_period=_PACE_S,
            get_time=clock,
        )
        self._numbers = {step: f"{i}/{len(steps)}" for i, step in enumerate(steps, 1)}
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def show(self, event: dict[str, Any]) -> None:
        step, kind = event["step"], event["kind"]
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(
                step, total=None, note="", number=self._numbers.get(step, ""), first=None
            )
        task = self._tasks[step]
        if kind == "progress":
            first = self._progress.tasks[task].fields["first"]
            self._progress.update(
                task,
                completed=event["done"],
                total=event["total"] or None,
                note=event["note"],
                first=event["done"] if first is None else first,
            )
        elif kind == "note":
            # Above the bars, where it stays.
            self._progress.console.print(f"{step:<10} {event['message']}", markup=False, highlight=False)
        elif kind == "done":
            self._progress.update(task, completed=1, total=1, note=ending(event))
            self._progress.stop_task(task)
        elif kind == "failed":
            self._progress.update(task, note="failed")
            self._progress.stop_task(task)

    def close(self) -> None:
        self._progress.stop()


def ending(event: dict[str, Any]) -> str:
    if event.get("cached"):
        return "cached"
    return str(event.get("outcome") or "done")


def clock(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`."""
    return f"{seconds:.1f} s" if seconds < 60 else time.strftime("%-M min %S s", time.gmtime(seconds))


def one_line(text: str) -> str:
    """Return the text with what does not print, such as line ends and escapes of a terminal, as escape sequences."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
