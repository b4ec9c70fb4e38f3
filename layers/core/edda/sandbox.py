"""What a process that reads hostile files gives up: memory, processor time, the network, other programs, its parent.

Linux only, without privileges. Whatever the kernel refuses is left undone: these are second walls, and the parent's
watch over memory and time is the first.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct

# Room for the interpreter, its libraries and the stacks of native threads, beside what a document may take.
OWN_BYTES = 160 * 1024**2
_MAX_FILE_BYTES = 64 * 1024**2

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
# Numbers of socket, execve and execveat, and the kernel's mark of the architecture.
_SYSTEM_CALLS = {"x86_64": (0xC000003E, (41, 59, 322)), "aarch64": (0xC00000B7, (198, 221, 281))}


def enter(memory_bytes: int) -> None:
    """Limit this process for good."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be watched
    # Private writable memory, which is what a bomb needs; RLIMIT_AS would count every thread's unused arena too.
    _limit(resource.RLIMIT_DATA, memory_bytes + OWN_BYTES)
    _limit(resource.RLIMIT_FSIZE, _MAX_FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _forbid_system_calls()


def allow_cpu_seconds(seconds: float) -> None:
    """Let this process use so much more processor time; then the kernel ends it with SIGXCPU."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (most, most))


def _prctl(option: int, *values: int) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return bool(library.prctl(ctypes.c_int(option), *arguments) == 0)


def _forbid_system_calls() -> None:
    """No sockets, no programs: these calls fail with EPERM from here on (seccomp)."""
    mark, numbers = _SYSTEM_CALLS.get(platform.machine(), (0, ()))
    if not numbers or not _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        return
    allow, refuse = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    count = len(numbers)
    program = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 0, count + 1, mark),  # another one: allow
        (0x20, 0, 0, 0),  # load the number of the call
        *((0x15, count - index, 0, number) for index, number in enumerate(numbers)),  # one of ours: refuse
        (0x06, 0, 0, allow),
        (0x06, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))
