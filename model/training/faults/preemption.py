"""Preemption: SIGTERM, which a scheduler sends before it takes the machine away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist


class Preemption:
    """Inside its context, SIGTERM does not end the process: it is remembered for `requested`.

    Only the main thread of a process receives signals. In another thread, such as one of Ray Train's workers, `listens`
    is False: there the launching process receives the signal and forwards it by a file, `notice` (see
    `forwarded_to`).
    """

    def __init__(self, world: int = 1, device: torch.device | None = None, *, notice: Path | None = None) -> None:
        self.world, self.device, self.notice = world, device, notice
        self.listens = threading.current_thread() is threading.main_thread()
        self._received = False
        self._before: Any = None

    def requested(self) -> bool:
        """Return whether any rank was asked to stop, the same answer on all: each calls it after the same step."""
        received = self._received or (not self.listens and self.notice is not None and self.notice.exists())
        if self.world == 1:
            return received
        requested = torch.tensor(int(received), device=self.device)
        dist.all_reduce(requested, op=dist.ReduceOp.MAX)
        return bool(requested)

    def __enter__(self) -> Self:
        if self.listens:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.listens:
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # May come several times: torchrun forwards a signal that the process group may already have received.
        self._received = True


@contextmanager
def forwarded_to(notice: Path) -> Iterator[Callable[[], bool]]:
    """Inside, forward SIGTERM of this process to workers whose `Preemption` watches the file `notice`. Yields whether
    it has come, a function that may also be called afterwards.

    No effect outside of a main thread; a file that an earlier run left is removed.
    """
    notice.unlink(missing_ok=True)
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return

    def forward(number: int, frame: FrameType | None) -> None:
        received.set()
        notice.touch()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
        notice.unlink(missing_ok=True)
