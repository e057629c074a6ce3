"""How a run ends that cannot go on: hung, not finite, or with a rank in trouble."""

import json
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from failing_ranks import CONFIG, engine_of, some_batch, trouble_in_the_second
from rank_pool import RankPool
from torch import nn
from training_fixtures import HANG_S, ROOT, environment

from sluice.model.training.faults.diagnosis import diagnose
from sluice.model.training.faults.preemption import Preemption
from sluice.model.training.faults.watchdog import EXIT_CODE, Watchdog

_HUNG = """
import sys, threading, ctypes
from pathlib import Path
from sluice.model.training.faults.watchdog import Watchdog

def wait_for_a_peer_that_is_gone():
    threading.Event().wait()

def keep_the_interpreters_lock():
    ctypes.PyDLL(None).pause()

with Watchdog(0.2, Path(sys.argv[1]) / "stacks.txt", name="rank 3") as watchdog:
    watchdog.beat()
    globals()[sys.argv[2]]()
"""


def hang(folder: Path, where: str) -> tuple[subprocess.CompletedProcess[str], str]:
    command = [sys.executable, "-c", _HUNG, str(folder), where]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=HANG_S, check=False
    )
    return done, (folder / "stacks.txt").read_text()


@pytest.mark.process
def test_a_hang_ends_with_the_stacks_of_all_threads(tmp_path: Path) -> None:
    done, stacks = hang(tmp_path, "wait_for_a_peer_that_is_gone")
    assert done.returncode == EXIT_CODE
    for text in (stacks, done.stderr):
        assert text.startswith(f"rank 3 made no step for 0.2 s: it is ended; the stacks are in {tmp_path}/stacks.txt; ")
        assert "raise pretrain.watchdog_s" in text
        assert "wait_for_a_peer_that_is_gone" in text


@pytest.mark.process
def test_a_hang_that_holds_the_interpreters_lock_ends_too(tmp_path: Path) -> None:
    done, stacks = hang(tmp_path, "keep_the_interpreters_lock")
    assert done.returncode == 1
    assert "keep_the_interpreters_lock" in stacks


def test_a_run_that_beats_leaves_nothing_behind(tmp_path: Path) -> None:
    with Watchdog(60, tmp_path / "a" / "stacks.txt") as watchdog:
        watchdog.beat()
    assert list((tmp_path / "a").iterdir()) == []


def test_sigterm_does_what_it_did_before_once_training_is_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert preemption.requested()
        assert preemption.listens
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_parameter_that_is_not_finite_is_named(tmp_path: Path) -> None:
    engine = engine_of(CONFIG)
    with torch.no_grad():
        engine.model.layers[1].feedforward.down.weight[0, 1] = float("inf")
    line = diagnose(engine, some_batch(), 2, step=7, what="the loss is nan", folder=tmp_path)
    assert line.startswith(
        "the loss is nan at step 7: parameter layers.1.feedforward.down.weight has 0 NaN and 1 infinite of "
    )


def test_the_first_module_and_its_rows_are_named(tmp_path: Path) -> None:
    engine, batch, passes = engine_of(CONFIG), some_batch(), count()

    def overflow(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        """In the first row of the second micro-batch."""
        output = output.clone()
        output[0, 3] = float("inf") if next(passes) == 1 else output[0, 3]
        return output

    engine.model.layers[1].feedforward.register_forward_hook(overflow)
    line = diagnose(engine, batch, 2, step=7, what="the loss is nan", folder=tmp_path)
    path = tmp_path / "diagnosis-rank-00000.json"
    assert line == (
        "the loss is nan at step 7: the output of layers.1.feedforward has 0 NaN and 8 infinite of 128 values "
        f"in row 2 of the step's batch; see {path}"
    )
    content = json.loads(path.read_text())
    assert (content["step"], content["rows"], content["ids"]) == (7, [2], {"2": batch.ids[2].tolist()})


def test_a_gradient_that_is_not_finite_is_named(tmp_path: Path) -> None:
    engine = engine_of(CONFIG)
    name = "layers.0.feedforward.down.weight"
    dict(engine.model.named_parameters())[name].register_hook(lambda gradient: gradient * float("nan"))
    line = diagnose(engine, some_batch(), 2, step=1, what="the gradient is not finite", folder=tmp_path)
    assert f"the gradient of {name} has" in line
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_nothing_found_is_said_so(tmp_path: Path) -> None:
    line = diagnose(engine_of(CONFIG), some_batch(), 2, step=1, what="the loss is nan", folder=tmp_path)
    assert line == "the loss is nan at step 1: computed again, everything is finite"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def two_ranks(rank_pool: RankPool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    rank_pool.run(2, trouble_in_the_second, out)
    return out


def test_ranks_agree_on_one_ranks_trouble(two_ranks: Path) -> None:
    first, second = (json.loads((two_ranks / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["received"], second["received"]) == (False, True)
    assert first["asked"] == second["asked"] == [False, True]
    assert not first["listens"] and not second["listens"]
    assert first["by_notice"] == second["by_notice"] == [False, True]
    assert first["diagnosis"] == second["diagnosis"]
    assert first["diagnosis"].startswith("the loss is nan at step 3: parameter embedding.weight has 1 NaN")
    assert [path.name for path in two_ranks.glob("diagnosis-*")] == ["diagnosis-rank-00001.json"]


def test_one_ranks_full_disk_leaves_no_checkpoint_that_looks_whole(two_ranks: Path) -> None:
    first, second = (json.loads((two_ranks / f"{rank}.json").read_text()) for rank in range(2))
    for saved in (first["saved"], second["saved"]):
        assert saved[0] is None
        assert "File too large" in saved[1]
    assert sorted(path.name for path in (two_ranks / "checkpoints").iterdir()) == ["step-00000001"]
