"""Which process ended how, and whether memory ran out, in words."""

from pathlib import Path

import pytest

from sluice.core import out_of_memory
from sluice.core.out_of_memory import count_oom_kills, describe_exit


@pytest.mark.parametrize(
    ("code", "before", "after", "words"),
    [
        (1, 0, 0, "ended with status 1"),
        (-15, 0, 0, "was ended by SIGTERM"),
        (-6, 0, 3, "was ended by SIGABRT"),
        (-9, 2, 3, "was killed by SIGKILL: memory ran out (1 process killed by the kernel)"),
        (137, 0, 2, "was killed by SIGKILL: memory ran out (2 processes killed by the kernel)"),
        (-9, 3, 3, "was killed by SIGKILL, though the kernel counts no kill for want of memory"),
        (-9, None, None, "was killed by SIGKILL, as the system does when memory runs out (it does not say so here)"),
    ],
)
def test_an_exit_in_words(code: int, before: int | None, after: int | None, words: str) -> None:
    assert describe_exit(code, before, after) == words


@pytest.mark.parametrize(
    ("membership", "counter"),
    [
        ("0::/pods/one\n", "pods/one/memory.events"),
        ("0::/as/the/host/names/it\n", "memory.events"),
        ("12:cpu:/\n5:memory:/docker/x\n", "memory/docker/x/memory.oom_control"),
        ("5:memory:/docker/x\n", "memory/memory.oom_control"),
    ],
)
def test_kills_are_counted_in_the_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, counter: str
) -> None:
    for name, path in (("_CGROUPS", "cgroup"), ("_OWN_CGROUP", "self"), ("_VMSTAT", "vmstat")):
        monkeypatch.setattr(out_of_memory, name, tmp_path / path)
    assert count_oom_kills() is None
    (tmp_path / "vmstat").write_text("pgfault 8\noom_kill 40\noom_kill_other 1\n")
    assert count_oom_kills() == 40
    (tmp_path / "self").write_text(membership)
    path = tmp_path / "cgroup" / counter
    path.parent.mkdir(parents=True)
    path.write_text("oom 7\noom_kill 4\nunder_oom 0\n")
    assert count_oom_kills() == 4
