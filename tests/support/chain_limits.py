"""What a machine can take away: room, permission, memory, network, the right time. `Skipped` where this one cannot."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


class Skipped(Exception):
    """This machine cannot do that, for the reason given."""


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(folder, options):
    """A file system of its own, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    finally:
        _run("umount", "-l", folder)


@contextlib.contextmanager
def filled(folder, room):
    """Fill the file system of ``folder`` up to ``room`` bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            for _ in range(max(0, free - room) // 4096):
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


_READ_ONLY = 'n=$1; shift; while [ $n -gt 0 ]; do mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99; \
n=$((n-1)); shift; done; cd "$PWD" && exec "$@"'


def read_only(*folders):
    """Words before a command for which nothing in these folders can be written, not even by root."""
    _run("unshare", "-m", "sh", "-c", _READ_ONLY, "sh", len(folders), *folders, "true")
    return ("unshare", "-m", "sh", "-c", _READ_ONLY, "sh", str(len(folders)), *map(str, folders))


def clock(file):
    """Variables with which a command takes its time from ``file``, which may change; its monotonic clock stays."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Skipped("needs faketime (Debian: faketime)")
    return {
        "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": file, "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def offline(log):
    """Words before a command that leave it no network but this machine, every call noted in files at ``log``."""
    _run("unshare", "-n", "true")
    if shutil.which("strace") is None:
        raise Skipped("needs strace")
    traced = ("strace", "-ff", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log))
    return ("unshare", "-n", sys.executable, "-c", _LOOPBACK, *traced)


def elsewhere(log):
    """Internet addresses of other machines that were called."""
    text = "\n".join(path.read_text(errors="replace") for path in log.parent.glob(f"{log.name}.*"))
    assert text, "nothing was noted"
    calls = re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)', text)
    return sorted({one for one in calls if not one.startswith("127.") and one != "::1"})


@contextlib.contextmanager
def memory(limit):
    """A control group that holds ``limit`` bytes; yields what a process calls at its start."""
    old = (GROUPS / "memory" / "memory.limit_in_bytes").exists()
    group = GROUPS / ("memory" if old else ".") / f"stm-chain-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
    except OSError as error:
        raise Skipped(f"no control group for memory can be made: {error}") from error
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        time.sleep(0.1)
        group.rmdir()


def measured(chain, stage, limit=None):
    """Run a stage with so much memory; return exit code, output and the most resident memory of a process, in bytes."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context(memory(limit)) if limit else None
        out, err = (stack.enter_context((chain.place / name).open("w+")) for name in ("out", "err"))
        process = chain.start(chain.command(stage), stdout=out, stderr=err, preexec_fn=enter)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return process.returncode, out.read(), err.read(), used.ru_maxrss * 1024
