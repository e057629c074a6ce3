"""A folder of checkpoints that another process trains in."""

import subprocess
import sys
from pathlib import Path

import pytest

from sluice.model.training.checkpointing.lock import locked
from sluice.model.training.errors import TrainingFailed

_KEEP = """
import sys
from pathlib import Path
from sluice.model.training.checkpointing.lock import locked
with locked(Path(sys.argv[1])):
    print("kept", flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_one_process_at_a_time_and_a_dead_one_lets_go(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "state"
    command = [sys.executable, "-c", _KEEP, str(folder)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "kept\n"
        with (
            pytest.raises(TrainingFailed, match=f"another process trains in {folder}: end it, or wait"),
            locked(folder, patience_s=0.0),
        ):
            raise AssertionError
        other.kill()
        other.wait()
        with locked(folder):
            assert (folder / "lock").is_file()
    with locked(folder, patience_s=0.0):
        assert folder.is_dir()
