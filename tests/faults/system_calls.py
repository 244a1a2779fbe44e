#!/usr/bin/env python3
"""Counts the system calls of a running process, and kills it before the N-th.

    system_calls.py PID [N]

Says `ready` once every thread is watched. Then either `killed NAME` (the N-th call was about to be made, the process is
dead), `ended` (it died of something else), or, on SIGTERM, `counted COUNT`, and lets go of it.

All threads share one count, which tools that inject faults per thread do not offer. Calls that nobody outside of the
process can notice are not counted: memory, waiting and time. A kill between two of them is to everyone else the same
kill. Needs Linux 5.3, a C compiler for the names of the calls, and the right to trace the process.
"""

import ctypes
import os
import signal
import subprocess
import sys

SEIZE, INTERRUPT, LISTEN, SYSCALL, SYSCALL_INFO = 0x4206, 0x4207, 0x4208, 24, 0x420E
SYSGOOD, CLONE = 0x1, 0x8
EVENT_STOP, WALL, ENTRY = 128, 0x40000000, 1
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
UNNOTICED = {
    "brk", "madvise", "mlock", "mlock2", "mmap", "mprotect", "mremap", "munlock", "munmap",
    "clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "times",
    "clone", "clone3", "exit", "futex", "membarrier", "prctl", "restart_syscall", "rseq", "sched_getaffinity",
    "sched_setaffinity", "sched_yield", "set_robust_list", "set_tid_address",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "poll", "ppoll",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "geteuid", "getpid", "getppid", "getrandom", "getrusage", "gettid", "getuid", "prlimit64", "sysinfo", "uname",
    "fstat", "getpeername", "getsockname", "getsockopt", "lseek", "newfstatat", "stat", "statx",
}  # fmt: skip

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Gone(Exception):
    """The thread is no more."""


class Enough(Exception):
    """Whoever started this wants the count."""


def ptrace(request, thread, address=0, data=0):
    done = libc.ptrace(request, thread, address, data)
    if done < 0:
        error = ctypes.get_errno()
        if error == 3:
            raise Gone
        raise OSError(error, os.strerror(error))
    return done


def names():
    """The numbers of the calls, from the C library's own headers."""
    said = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-"], input="", capture_output=True, text=True, check=True
    )
    words = (line.split() for line in said.stdout.splitlines() if line.startswith("#define __NR_"))
    return {int(line[2]): line[1][len("__NR_") :] for line in words if line[2].isdigit()}


def attach(process):
    """Watches every thread there is; those that begin later are watched by themselves."""
    watched = set()
    while True:
        new = {int(thread) for thread in os.listdir(f"/proc/{process}/task")} - watched
        if not new:
            return
        for thread in new:
            try:
                ptrace(SEIZE, thread, 0, SYSGOOD | CLONE)
                ptrace(INTERRUPT, thread)
            except Gone:
                pass
            except PermissionError:
                # A thread that began meanwhile is watched already.
                if not watched:
                    raise
            watched.add(thread)


def call_of(thread):
    """The number of the call that is about to be made, or nothing if one has been."""
    info = (ctypes.c_uint8 * 88)()
    ptrace(SYSCALL_INFO, thread, len(info), ctypes.addressof(info))
    return int.from_bytes(bytes(info[24:32]), sys.byteorder) if info[0] == ENTRY else None


class Watch:
    """One process, its threads already traced."""

    def __init__(self, process, strike):
        self.process, self.strike, self.count = process, strike, 0
        self.names = names()

    def run(self):
        """Until the process is dead; what became of it."""
        while True:
            try:
                thread, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return "ended"
            if not os.WIFSTOPPED(status):
                continue
            try:
                name = self.go_on(thread, os.WSTOPSIG(status), status >> 16)
            except Gone:
                continue
            if name:
                return f"killed {name}"

    def go_on(self, thread, stopped_by, event):
        """Lets a stopped thread go on, unless this was the call."""
        if stopped_by == signal.SIGTRAP | 0x80:
            call = call_of(thread)
            name = self.names.get(call, str(call))
            if call is not None and name not in UNNOTICED:
                self.count += 1
                if self.count == self.strike:
                    # What is done is said, whatever is asked meanwhile.
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    os.kill(self.process, signal.SIGKILL)
                    return name
            ptrace(SYSCALL, thread)
        elif event == EVENT_STOP and stopped_by in STOPPING:
            ptrace(LISTEN, thread)
        else:
            # A signal is handed on; an event is none.
            ptrace(SYSCALL, thread, 0, 0 if event else stopped_by)
        return None


def enough(*_):
    raise Enough


def main():
    watch = Watch(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    attach(watch.process)
    signal.signal(signal.SIGTERM, enough)
    print("ready", flush=True)
    try:
        print(watch.run(), flush=True)
    except Enough:
        print(f"counted {watch.count}", flush=True)


main()
