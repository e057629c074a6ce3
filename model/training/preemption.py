"""Being asked to end: SIGTERM, which a scheduler sends before it takes the machine away."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist


class Preemption:
    """Inside its context, SIGTERM ends nothing: it is remembered for `asked`.

    Signals reach a process's main thread alone. In another thread, such as one of Ray Train's workers, this listens to
    nothing and `listens` is False: there a lost worker group is started again from its last checkpoint.
    """

    def __init__(self, world: int = 1, device: torch.device | None = None) -> None:
        self.world, self.device = world, device
        self.listens = threading.current_thread() is threading.main_thread()
        self._received = False
        self._before: Any = None

    def asked(self) -> bool:
        """Whether any rank was asked, the same answer on all of them: each calls it after the same step."""
        if self.world == 1:
            return self._received
        asked = torch.tensor(int(self._received), device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked)

    def __enter__(self) -> Self:
        if self.listens:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.listens:
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Again and again, too: torchrun passes on a signal that the process group may have had already.
        self._received = True
