"""The store's rows: puts and linearizable gets, three members, fsync on.

The stores run one after the other, each alone, on folders of the same disk.
"""

import re
import signal
import subprocess
import time

from . import members
from .process import BenchError
from .table import Figure, Section

# Operation, connections, clients: DESIGN's modes.
MODES = [("put", 1, 1), ("put", 8, 64), ("put", 16, 256), ("get", 16, 256)]


def stores(run):
    """Ours and, where it is installed, etcd's."""
    return [members.Etcd] * run.tools.has("etcd") + [members.Skein]


def measure(run):
    """Puts at 1, 64 and 256 clients, gets at 256, and the memory after that."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("store") / kind.name)
            store.leader()
            found[kind.name] = {mode: _one(run, store, *mode) for mode in MODES}
            found[kind.name]["resident"] = store.resident_mb()
    return _section(found)


def _one(run, store, op, connections, clients):
    run.say(f"store: {store.name}, {op}, clients: {clients}")
    figures = store.load("store", "--op", op, "--connections", connections,
                         "--clients", clients, "--seconds", run.seconds)
    if figures["failed"]:
        raise BenchError(f"{store.name}: {figures['failed']} of the {op}s failed: "
                         f"{figures['first_fault']}")
    # The load also warms up for a tenth of the time, and that costs the members too.
    figures["cpu_us"] = figures["cpu_seconds"] / (figures["ops"] * 1.1) * 1e6
    return figures


def _section(found):
    figures = []
    for mode in MODES:
        op, _, clients = mode
        values = lambda field: {name: one[mode][field] for name, one in found.items()}
        title = f"{op}, {clients} client{'s' * (clients > 1)}"
        rate = Figure(title, "1/s", values("per_second"))
        if (op, clients) == ("put", 64):
            rate.reach("≥ etcd", 1, of="etcd", at_least=True)
        figures += [
            rate,
            Figure(f"{title}: p50", "ms", values("p50_ms")),
            Figure(f"{title}: p99", "ms", values("p99_ms")),
            Figure(f"{title}: CPU of all members per {op}", "µs", values("cpu_us")),
        ]
    resident = {name: one["resident"] for name, one in found.items()}
    figures.append(Figure("resident after that, the largest member", "MB", resident))
    return Section("store, 3 members", ["etcd"], figures)


def measure_syncs(run):
    """How often a member syncs per put, under strace: slow, so the counts alone mean something."""
    strace = run.tools.need("strace")
    found = {}
    for kind in stores(run):
        run.say(f"syncs: {kind.name}")
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("syncs") / kind.name)
            store.leader()
            tracers = []
            for at, process in enumerate(store.processes):
                output = store.folder / f"{at + 1}.strace"
                command = [strace, "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range",
                           "-o", output, "-p", process.pid]
                tracers.append((subprocess.Popen(
                    list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
                    output))
            # strace says nothing when it is there; attaching to a dozen threads takes it a moment.
            time.sleep(1)
            figures = store.load("store", "--op", "put", "--connections", 8, "--clients", 64,
                                 "--seconds", run.seconds)
            counts = []
            for tracer, output in tracers:
                tracer.send_signal(signal.SIGINT)
                tracer.wait()
                counts.append(_calls(output.read_text()))
            puts = figures["ops"] * 1.1
            found[kind.name] = [sum(count.get(call, 0) for count in counts) / puts * 1000
                                for call in ("fdatasync", "fsync", "sync_file_range")]
    figures = [Figure(f"{call} of all members per 1,000 puts", "calls",
                      {name: values[at] for name, values in found.items()})
               for at, call in enumerate(("fdatasync", "fsync", "sync_file_range"))]
    return Section("syncs under strace, 64 clients", ["etcd"], figures)


def _calls(summary):
    """Calls by name from strace's summary, whose column of errors may be empty."""
    found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", summary, re.M)
    return {name: int(calls) for calls, name in found}


def measure_failover(run):
    """`kill -9` of the leader to the next put that succeeds, several times."""
    found = {}
    for kind in stores(run):
        times = []
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("failover") / kind.name)
            for turn in range(run.failovers):
                leader = store.leader()
                # So that no member is still busy with the last fail-over.
                time.sleep(2)
                run.say(f"failover: {kind.name}, {turn + 1} of {run.failovers}")
                others = [client for at, client in enumerate(store.clients) if at != leader]
                figures = run.tools.load("failover", "--endpoints", ",".join(others),
                                         "--kill", store.processes[leader].pid)
                times.append(figures["first_write_ms"])
                store.processes[leader].popen.wait()
                store.restart(leader)
            found[kind.name] = sorted(times)
    worst = Figure(f"the slowest of {run.failovers}", "ms",
                   {name: times[-1] for name, times in found.items()})
    middle = Figure("the median", "ms",
                    {name: times[len(times) // 2] for name, times in found.items()})
    worst.reach("≤ 3 s", 3000)
    notes = [f"{name}: {', '.join(f'{one:.0f}' for one in times)} ms"
             for name, times in found.items()]
    return Section("first put after kill -9 of the leader", ["etcd"], [middle, worst], notes)
