"""A pretraining run that kills itself once STEP steps are done.

`.. killed REQUEST STEP` is `-m sluice.model.training.pretrain REQUEST` until then.

Then every process of it ends itself by SIGKILL. Each leaves `killed-RANK` beside the request, so that no other end is
taken for this one.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist


def mark_of(request: Path, rank: int) -> Path:
    return request.parent / f"killed-{rank}"


def killed_at(step: int, mark: Path, optimizer_step: Callable[..., Any]) -> Callable[..., Any]:
    """The loop's step, (engine, loop, number) -> record, of a process that does `step` of them."""

    def dying(engine: Any, loop: Any, number: int) -> Any:
        if number < step:
            return optimizer_step(engine, loop, number)
        try:
            # Until all have done as many. Who is still in it when another dies has done them too.
            dist.barrier()
        finally:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return dying


def main(request: str, step: str) -> None:
    from sluice.model.training import loop, pretrain

    mark = mark_of(Path(request), int(os.environ.get("RANK", "0")))
    loop.optimizer_step = killed_at(int(step), mark, loop.optimizer_step)
    sys.argv = [sys.argv[0], request]
    pretrain.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
