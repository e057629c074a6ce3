"""Under torchrun: `-m sluice.model.training.pretrain REQUEST`, whose processes get SIGTERM at step STEP."""

import os
import signal
import sys
import threading
from typing import Any

from sluice.model.training import loop, pretrain
from sluice.model.training.faults.preemption import Preemption

HEARD_S = 600

asked_at, heard = int(sys.argv.pop()), threading.Event()
take_step, remember = loop.optimizer_step, Preemption._remember


def step_in_which_it_is_asked(engine: Any, steps: Any, step: int) -> Any:
    if step + 1 == asked_at:
        if os.environ["RANK"] == "0":
            # torchrun, which passes it on.
            os.kill(os.getppid(), signal.SIGTERM)
        assert heard.wait(HEARD_S)
    return take_step(engine, steps, step)


def remember_and_tell(self: Preemption, number: int, frame: Any) -> None:
    remember(self, number, frame)
    heard.set()


loop.optimizer_step, Preemption._remember = step_in_which_it_is_asked, remember_and_tell
pretrain.main()
