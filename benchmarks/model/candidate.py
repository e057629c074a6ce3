"""The process of one candidate: built once, warmed up, then a round whenever the driver asks for one.

A process of its own, so that one library's memory, threads and compiled code are not another's. Processes that start
import this file, so all that weighs is imported where it is used. Messages are JSON.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.model.case import Case, Round, Started
from benchmarks.report import device_peak_bytes, resident_bytes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PROMPT = 64
WARM_UPS = 2
_MATMUL = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the product that stands for a device's peak."""
_MATMUL_S = 0.5

Work = Callable[[], tuple[float, float]]
"""Does one round: (seconds, units)."""


def serve(connection: "Connection", text: str) -> None:
    """Answer `Started`, then a `Round` for each message, until the other end is closed; or the error that ended it."""
    try:
        _serve(connection, Case.model_validate_json(text))
    except Exception as error:  # whatever it is, the driver names the candidate with it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        connection.send_bytes(json.dumps({"error": reason}).encode())


def _serve(connection: "Connection", case: Case) -> None:
    # Compiling in processes of its own would put its memory outside the figures, and its work on others' cores.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch

    torch.set_num_threads(case.threads)
    begun = time.perf_counter()
    started, work = (_matmul if case.work == "matmul" else _model)(case)
    for _ in range(WARM_UPS):
        work()
    if case.library == "sluice" and case.work != "matmul":
        from sluice.model.architecture.kernels import choices

        started = started.model_copy(update={"kernels": [f"{name}: {why}" for name, why in choices()]})
    # What warming up and compiling took at most is not what a step takes.
    reset_peak(case.device)
    started = started.model_copy(update={"warm_up_s": time.perf_counter() - begun})
    connection.send_bytes(started.model_dump_json().encode())
    while True:
        try:
            connection.recv_bytes()
        except EOFError:
            return
        seconds, units = work()
        answer = Round(seconds=seconds, units=units, peak_bytes=device_peak_bytes(case.device))
        connection.send_bytes(answer.model_dump_json().encode())


def _matmul(case: Case) -> tuple[Started, Work]:
    import torch

    dtype, size = torch.bfloat16 if case.precision == "bf16" else torch.float32, _MATMUL[case.device]
    left, right = (torch.ones(size, size, dtype=dtype, device=case.device) for _ in range(2))

    def work() -> tuple[float, float]:
        best, end = float("inf"), time.perf_counter() + _MATMUL_S
        while time.perf_counter() < end:
            best = min(best, _timed(lambda: torch.mm(left, right), case.device))
        return best, 2.0 * size**3

    return Started(parameters=0, import_bytes=resident_bytes(), warm_up_s=0, check=[]), work


def _model(case: Case) -> tuple[Started, Work]:
    import torch

    library: Any
    if case.library == "sluice":
        from benchmarks.model import ours as library
    else:
        # Imported now, so that it counts as imported and not as built.
        import transformers.models.llama.modeling_llama  # noqa: F401

        from benchmarks.model import peer as library
    import_bytes = resident_bytes()
    state = None
    if case.weights is not None:
        from safetensors.torch import load_file

        state = load_file(case.weights)
    model = library.build(case, state)
    del state
    random = torch.Generator().manual_seed(1)
    rows, length = (1, PROMPT) if case.work == "generate" else (case.rows, case.sequence)
    ids = torch.randint(0, case.model.vocab_size, (rows, length), generator=random).to(case.device)
    started = Started(
        parameters=sum(weight.numel() for weight in model.parameters()),
        import_bytes=import_bytes,
        warm_up_s=0,
        check=[library.common_loss(model, ids[:1])],
    )
    if case.work == "train":
        loss = library.trainer(model, case)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            loss(ids).backward()

        return started, lambda: (_timed(step, case.device), float(ids.numel()))
    generate = library.generator(model, case, case.sequence - PROMPT)

    def work() -> tuple[float, float]:
        generated: list[int] = []
        seconds = _timed(lambda: generated.extend(generate(ids)), case.device)
        assert len(generated) == case.sequence - PROMPT, f"{len(generated)} tokens were generated"
        return seconds, float(len(generated))

    return started.model_copy(update={"check": [float(token) for token in generate(ids)]}), work


def _timed(work: Callable[[], object], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def reset_peak(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    # 5 sets the high-water mark back to what is resident now: proc(5).
    Path("/proc/self/clear_refs").write_text("5")
