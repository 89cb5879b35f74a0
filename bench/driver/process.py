"""Processes: starting, ending, and what `/proc` says that they cost.

Owns every process that a run starts; ends them by their ids, whatever happens.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement that cannot be done, with the reason."""


class Process:
    """A process with its log, which dies with the run."""

    def __init__(self, name, command, log, **options):
        self.name, self.log = name, log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        self.pid = self.popen.pid

    def check(self):
        """Fails, with the end of the log, if the process has ended."""
        if self.popen.poll() is not None:
            with open(self.log, "rb") as log:
                end = log.read()[-1500:].decode(errors="replace")
            raise BenchError(f"{self.name} ended with {self.popen.returncode}:\n{end}")

    def kill(self):
        """`kill -9`."""
        self.popen.kill()
        self.popen.wait()

    def stop(self):
        """Asks it to end, and insists after ten seconds."""
        if self.popen.poll() is not None:
            return
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


class Stage(contextlib.ExitStack):
    """Starts processes, and ends them all when left, the last one first."""

    def start(self, name, command, log, **options):
        process = Process(name, command, log, **options)
        self.callback(process.stop)
        return process


def family(pid):
    """The process and all below it: nginx's master has its workers."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(entry)[1]), []).append(int(entry))
    found, open_ = [], [pid]
    while open_:
        one = open_.pop()
        found.append(one)
        open_.extend(parents.get(one, []))
    return found


def cpu_seconds(processes):
    """User and system time so far, of the processes and all below them."""
    total = 0
    for process in processes:
        process.check()
        for pid in family(process.pid):
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mb(process):
    """Resident memory of the process and all below it, in MB of 10^6 bytes."""
    kib = 0
    for pid in family(process.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:
            kib += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return kib * 1024 / 1e6


def _stat(pid):
    """The fields of `/proc/PID/stat` after the name, which may hold spaces and brackets."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


def pin(pid, cores):
    """Keeps each thread of the process on the cores that `cores` gives for its name; threads that it
    starts later stay where the starting one is."""
    available = os.sched_getaffinity(0)
    for entry in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{entry}/comm") as name:
            os.sched_setaffinity(int(entry), cores(name.read().strip()) & available or available)


def free_port(ip="127.0.0.1", kind=socket.SOCK_STREAM):
    """A port that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((ip, 0))
        return one.getsockname()[1]


def wait_for(what, condition, seconds=30.0, rest=0.05):
    """Waits until the condition holds and returns what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        time.sleep(rest)
