"""The cores that a process may use are those it is bound to."""

import os
import subprocess
import sys

import pytest

_SAYS = "from sluice.core.cpus import available_cores; print(available_cores())"


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_that_a_process_is_kept_from_do_not_count() -> None:
    one = min(os.sched_getaffinity(0))
    bound = f"import os; os.sched_setaffinity(0, {{{one}}}); {_SAYS}"
    assert subprocess.run([sys.executable, "-c", bound], capture_output=True, text=True, check=True).stdout == "1\n"
