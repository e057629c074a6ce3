"""Runs first inside a sandbox: builds its namespaces, sets the limits of the program, and watches it.

`sluice.model.sandbox` passes this file's text to a bare interpreter as `python -c TEXT JSON`, so it imports the
standard library only. JSON has the fields of `Task`. The program's source comes on standard input. The outcome leaves
as one line of JSON on the descriptor `status_fd`: `{"exit": 0}`, `{"signal": 9}`, `{"timeout": true}`, or
`{"error": reason}` where the sandbox could not be set up, in which case the program was not started.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

NOBODY = 65534
CAPABILITIES = 64

# linux/sched.h
NEW_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# linux/mount.h
READ_ONLY, NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
# linux/prctl.h
SET_PARENT_DEATH_SIGNAL, SET_SECCOMP, DROP_FROM_BOUNDING_SET, SET_NO_NEW_PRIVILEGES = 1, 22, 24, 38
SECCOMP_FILTER = 2
# Numbers on x86-64 and AArch64 of calls that the program may not make: those that hold memory which no limit counts,
# and those that reach far into the kernel and that no solution needs.
DENIED = {
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "clone3": (435, 435),
}
"""clone3 hides its flags from a filter; the C library falls back to clone where it is not implemented."""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> position in `DENIED` and its number in linux/audit.h."""

libc = ctypes.CDLL(None, use_errno=True)


class Task(NamedTuple):
    """Program and limits that the guard is given."""

    status_fd: int
    builds_namespaces: bool
    """False where bubblewrap has built them already."""
    shown: list[str]
    """Paths that the program may read."""
    command: list[str]
    """Interpreter and its options; the program's path is appended."""
    environment: dict[str, str]
    wall_s: float
    cpu_s: int
    memory_bytes: int
    tmp_bytes: int
    file_bytes: int
    processes: int


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library; OSError with its name where it fails."""
    converted = [
        each.encode() if isinstance(each, str) else ctypes.c_long(each) if isinstance(each, int) else each
        for each in arguments
    ]
    if getattr(libc, name)(*converted) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def die_with_parent() -> None:
    call("prctl", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def in_new_namespaces() -> None:
    """Return in the first process of new namespaces, whose death ends every process in them.

    The caller's process stays outside: it maps the user, waits, and exits.
    """
    ready_read, ready_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    outer = os.getpid()
    child = os.fork()
    if child:
        os.close(ready_write)
        if os.read(ready_read, 1):
            map_users(child)
            os.write(mapped_write, b"m")
        os.waitpid(child, 0)
        os._exit(0)
    die_with_parent()
    if os.getppid() != outer:
        os._exit(1)
    os.close(ready_read)
    call("unshare", sum(NEW_NAMESPACES.values()))
    os.write(ready_write, b"r")
    os.close(mapped_write)
    if not os.read(mapped_read, 1):
        raise OSError("the user cannot be mapped")
    init = os.fork()
    if init:
        os.close(0)
        os.waitpid(init, 0)
        os._exit(0)
    die_with_parent()


def map_users(pid: int) -> None:
    """Make the caller nobody in the namespaces of process `pid`; root also keeps itself, to read what only it may."""
    proc, uid, gid = Path(f"/proc/{pid}"), os.getuid(), os.getgid()
    if uid == 0:
        users = groups = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
    else:
        users, groups = f"{NOBODY} {uid} 1\n", f"{NOBODY} {gid} 1\n"
    try:
        if uid != 0:
            (proc / "setgroups").write_text("deny")
        (proc / "uid_map").write_text(users)
        (proc / "gid_map").write_text(groups)
    except OSError as error:
        raise OSError(error.errno, f"mapping user {uid} to nobody: {error.strerror}") from error


def build_root(task: Task) -> None:
    """Replace the file system by an empty one with the paths of `task.shown`, read-only, and a /tmp of its own."""
    # The program may make no user namespace in this one; where this cannot be set, the filter of calls refuses it.
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    call("mount", "none", "/", None, RECURSIVE | PRIVATE, None)
    call("mount", "tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES, b"mode=0755,size=1m")
    Path("/tmp/old").mkdir()
    Path("/tmp/new").mkdir()
    call("pivot_root", "/tmp", "/tmp/old")
    os.chdir("/")
    call("mount", "tmpfs", "/new", "tmpfs", NO_SUID | NO_DEVICES, b"mode=0755,size=1m")
    for path in map(Path, task.shown):
        show(path)
    Path("/new/tmp").mkdir()
    set_mount_flags("/new", READ_ONLY, recursive=False)
    options = f"mode=1777,size={task.tmp_bytes},nr_inodes=1000"
    call("mount", "tmpfs", "/new/tmp", "tmpfs", NO_SUID | NO_DEVICES, options)
    os.chdir("/new")
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)
    os.chdir("/tmp")


def show(path: Path) -> None:
    """Put a link, a folder or a device of the old file system at its own place in the new one."""
    source, target = Path(f"/old{path}"), Path(f"/new{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if not source.exists():
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    call("mount", str(source), str(target), None, BIND | RECURSIVE, None)
    set_mount_flags(str(target), READ_ONLY | NO_SUID, recursive=True)


def set_mount_flags(path: str, flags: int, *, recursive: bool) -> None:
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    how = AT_RECURSIVE if recursive else 0
    call("syscall", MOUNT_SETATTR, AT_FDCWD, path, how, attributes, len(attributes))


def filter_calls() -> None:
    """Refuse the calls of `DENIED` with EPERM, other architectures' calls by a kill."""
    column, architecture = ARCHITECTURES[os.uname().machine]
    load, jump_equal, jump_least, answer = 0x20, 0x15, 0x35, 0x06
    kill, refuse, not_implemented, allow = 0x80000000, 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000
    numbers = {name: each[column] for name, each in DENIED.items()}
    program = [
        (load, 0, 0, 4),
        (jump_equal, 1, 0, architecture),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),
        (jump_least, 0, 1, 0x40000000),  # the x32 calls of x86-64
        (answer, 0, 0, kill),
    ]
    for name, number in numbers.items():
        verdict = not_implemented if name == "clone3" else refuse
        program += [(jump_equal, 0, 1, number), (answer, 0, 0, verdict)]
    program.append((answer, 0, 0, allow))
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    call("prctl", SET_SECCOMP, SECCOMP_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0)


def become_program(task: Task, path: str) -> None:
    """Give up every privilege, set the limits, and become the program."""
    for number in range(CAPABILITIES):
        libc.prctl(DROP_FROM_BOUNDING_SET, number, 0, 0, 0)
    is_root = os.getuid() == 0
    if is_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    filter_calls()
    limits = {
        resource.RLIMIT_AS: task.memory_bytes,
        resource.RLIMIT_FSIZE: task.file_bytes,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        # Without root, the two processes that watch this one are of the same user.
        resource.RLIMIT_NPROC: task.processes + (0 if is_root else 2),
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    # A signal, which the program may ignore for a second.
    resource.setrlimit(resource.RLIMIT_CPU, (task.cpu_s, task.cpu_s + 1))
    os.execve(task.command[0], [*task.command, path], task.environment)


def watch(child: int, wall_s: float, cpu_s: float) -> dict[str, Any]:
    """Wait for the program, at most `wall_s`, and return the outcome. The guard's own end kills what is left."""

    def expire(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        pid = 0
        while pid != child:
            # Also reaps what the program left behind.
            pid, status, used = os.wait4(-1, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        return {"timeout": True}
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU or (code < 0 and used.ru_utime + used.ru_stime >= cpu_s):
        return {"timeout": True}
    return {"signal": -code} if code < 0 else {"exit": code}


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    # The program gets standard input, output and error, and nothing else.
    os.set_inheritable(task.status_fd, False)
    os.umask(0o022)
    try:
        source = sys.stdin.buffer.read()
        if task.builds_namespaces:
            in_new_namespaces()
            build_root(task)
        program = Path("/tmp/program.py")
        program.write_bytes(source)
        program.chmod(0o444)
        failed_read, failed_write = os.pipe()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        child = os.fork()
        if child == 0:
            try:
                become_program(task, str(program))
            except BaseException as error:
                os.write(failed_write, str(error).encode())
                os._exit(1)
        os.close(failed_write)
        outcome = watch(child, task.wall_s, task.cpu_s)
        if failed := os.read(failed_read, 4096):
            outcome = {"error": failed.decode()}
    except OSError as error:
        outcome = {"error": str(error)}
    os.write(task.status_fd, json.dumps(outcome).encode() + b"\n")
    # As the first process of its namespace: this ends every other one.
    os._exit(0)


if __name__ == "__main__":
    main()
