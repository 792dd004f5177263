"""What a process takes away from itself before it runs source that users sent (Linux; elsewhere only resource limits).

The sandbox's child calls it. Standard library only: it is loaded by path, without the package.
Sources: landlock(7), seccomp(2), user_namespaces(7), capabilities(7).
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from pathlib import Path
from typing import Any

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x20000, 0x10000000, 0x40000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_SIGKILL = 9
_READ = 0b1101  # execute (for shared libraries), read file, read directory
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x10000

# Numbers from the kernel's tables: asm/unistd_64.h and asm-generic/unistd.h.
_X86_64 = {
    "refused": [
        41, 42, 43, 49, 50, 288, 57, 58, 59, 322, 62, 129, 200, 234, 297, 424, 434, 438,
        101, 310, 311, 312, 165, 166, 155, 161, 167, 168, 169, 170, 171, 172, 173, 175, 176, 313, 246, 320,
        272, 308, 321, 323, 298, 248, 249, 250, 303, 304, 300, 319, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
        29, 64, 68, 240, 163, 179, 135, 141, 142, 144, 203, 314, 153, 447,
    ],
    "clone": 56, "clone3": 435, "prlimit": 302, "capset": 126, "audit": 0xC000003E,
}  # fmt: skip
_AARCH64 = {
    "refused": [
        198, 203, 202, 200, 201, 242, 221, 281, 129, 130, 131, 138, 240, 424, 434, 438,
        117, 270, 271, 272, 40, 39, 41, 51, 224, 225, 142, 161, 162, 105, 106, 273, 104, 294,
        97, 268, 280, 282, 241, 217, 218, 219, 264, 265, 262, 279, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
        194, 190, 186, 180, 89, 60, 92, 140, 118, 119, 122, 274, 58, 447,
    ],
    "clone": 220, "clone3": 435, "prlimit": 261, "capset": 91, "audit": 0xC00000B7,
}  # fmt: skip
_Table = dict[str, Any]
_TABLES: dict[str, _Table] = {"x86_64": _X86_64, "aarch64": _AARCH64}


def confine(folder: str, *, memory_bytes: int, seconds: float) -> list[str]:
    """Give up what this process does not need; returns the names of the measures that hold.

    Args:
        folder: its empty working directory.
        memory_bytes: address space it may add to what it already maps.
        seconds: processor time.
    """
    active = ["rlimits"]
    _limit(memory_bytes, seconds)
    table = _TABLES.get(platform.machine())
    if sys.platform != "linux" or table is None:
        return active
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    active += _namespaces(libc, folder)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        active.append("no_new_privileges")
    if _landlock(libc, folder, writable="private_tmpfs" in active):
        active.append("landlock")
    if _drop_capabilities(libc, table["capset"]):
        active.append("no_capabilities")
    if _seccomp(libc, table):
        active.append("seccomp")
    return active


def _limit(memory_bytes: int, seconds: float) -> None:
    address_space = memory_bytes + _mapped()
    cpu = int(seconds) + 2
    for kind, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 16 * 1024 * 1024),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _mapped() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 * 1024 * 1024


def _namespaces(libc: ctypes.CDLL, folder: str) -> list[str]:
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWNS) != 0:
        return []
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        return ["user_namespace", "network_namespace", "ipc_namespace"]
    active = ["user_namespace", "network_namespace", "ipc_namespace", "mount_namespace"]
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    options = b"size=16m,nr_inodes=1024,mode=700"
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), options) == 0:
        os.chdir(folder)
        active.append("private_tmpfs")
    return active


def _landlock(libc: ctypes.CDLL, folder: str, *, writable: bool) -> bool:
    abi = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    files = (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1
    ruleset = struct.pack("QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    handle = libc.syscall(444, ruleset, ctypes.c_size_t(size), 0)
    if handle < 0:
        return False
    library = Path(os.__file__).parent
    readable = [str(library), "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"]
    rules = [(path, _READ) for path in readable] + [(folder, files if writable else _READ)]
    for path, access in rules:
        _allow(libc, handle, path, access)
    held = libc.syscall(446, handle, 0) == 0
    os.close(handle)
    return held


def _allow(libc: ctypes.CDLL, handle: int, path: str, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        access &= 0b111
    libc.syscall(445, handle, 1, struct.pack("=Qi", access, opened), 0)
    os.close(opened)


def _drop_capabilities(libc: ctypes.CDLL, number: int) -> bool:
    header = struct.pack("Ii", 0x20080522, 0)
    return libc.syscall(number, header, b"\0" * 24) == 0


def _seccomp(libc: ctypes.CDLL, table: _Table) -> bool:
    program = _program(table)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    return libc.prctl(_PR_SET_SECCOMP, 2, pointer, 0, 0) == 0


def _program(table: _Table) -> bytes:
    """A BPF filter: no new processes, sockets, signals, tracing, mounts or kernel doors; threads stay possible."""
    load, equal, at_least, test, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS, 0x80000000

    def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    steps = [
        step(load, 4), step(equal, table["audit"], 1, 0), step(give, kill),
        step(load, 0), step(at_least, 0x40000000, 0, 1), step(give, kill),
        step(equal, table["clone3"], 0, 1), step(give, absent),
        step(equal, table["clone"], 0, 4), step(load, 16), step(test, _CLONE_THREAD, 1, 0), step(give, refuse),
        step(give, allow),
        step(equal, table["prlimit"], 0, 4), step(load, 16), step(equal, 0, 1, 0), step(give, refuse),
        step(give, allow),
    ]  # fmt: skip
    for number in table["refused"]:
        steps += [step(equal, number, 0, 1), step(give, refuse)]
    return b"".join([*steps, step(give, allow)])
