"""The store's rows: operations, watchers, memory, fail-over; three members, fsync on.

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
MODES = [("put", 1, 1), ("put", 8, 64), ("put", 16, 256), ("get", 16, 256),
         ("serializable-get", 16, 256), ("txn", 8, 64), ("lease-grant", 8, 64)]

# Watchers, streams.
WATCHERS = [(1_000, 12), (10_000, 24)]

RANGE_KEYS = 100_000
MILLION = 1_000_000


def stores(run):
    """Ours and, where it is installed, etcd's."""
    return [members.Etcd] * run.tools.has("etcd") + [members.Skein]


def measure(run):
    """Every mode, and the memory after that."""
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
        title = f"{op}, {clients} client{'s' * (clients > 1)}"
        rate = Figure(title, "1/s", _values(found, mode, "per_second"))
        p50 = Figure(f"{title}: p50", "ms", _values(found, mode, "p50_ms"))
        p99 = Figure(f"{title}: p99", "ms", _values(found, mode, "p99_ms"))
        cpu = Figure(f"{title}: CPU of all members each", "µs", _values(found, mode, "cpu_us"))
        if (op, clients) == ("put", 64):
            rate.reach("≥ etcd", 1, of="etcd", at_least=True)
        if clients == 1:
            p50.reach("≤ 0.5 ×", 0.5, of="etcd")
        else:
            rate.reach("≥ 3 ×", 3, of="etcd", at_least=True)
        if clients > 1 and op == "put":
            cpu.reach("≤ 0.3 ×", 0.3, of="etcd")
        if op.endswith("get"):
            cpu.reach("≤ 0.15 ×", 0.15, of="etcd")
        figures += [rate, p50, p99, cpu]
    resident = {name: one["resident"] for name, one in found.items()}
    figures.append(Figure("resident after that, the largest member", "MB", resident))
    return Section("store, 3 members", ["etcd"], figures)


def _values(found, mode, field):
    return {name: one[mode][field] for name, one in found.items()}


def measure_watch(run):
    """How late events come to many watchers, and what each costs the members."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("watch") / kind.name)
            store.leader()
            found[kind.name] = {}
            for watchers, streams in WATCHERS:
                run.say(f"watch: {kind.name}, watchers: {watchers:,}")
                figures = store.load("watch", "--watchers", watchers, "--streams", streams,
                                     "--seconds", run.seconds)
                figures["cpu_us"] = figures["cpu_seconds"] / figures["events"] * 1e6
                found[kind.name][watchers] = figures
    figures = []
    for watchers, _ in WATCHERS:
        title = f"{watchers:,} watchers"
        figures += [
            Figure(f"{title}: p50", "ms", _values(found, watchers, "p50_ms")),
            Figure(f"{title}: p99", "ms",
                   _values(found, watchers, "p99_ms")).reach("≤ 0.5 ×", 0.5, of="etcd"),
            Figure(f"{title}: CPU of all members per event", "µs",
                   _values(found, watchers, "cpu_us")).reach("≤ 0.3 ×", 0.3, of="etcd"),
        ]
    return Section("watchers, 20,000 events/s in all", ["etcd"], figures)


def measure_beside(run):
    """Puts of 64 clients alone, and while another client reads everything in a loop."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("beside") / kind.name)
            store.leader()
            run.say(f"beside: {kind.name}, {RANGE_KEYS:,} keys")
            store.load("fill", "--keys", RANGE_KEYS)
            found[kind.name] = {"alone": _one(run, store, "put", 8, 64)}
            for op in ("range", "snapshot"):
                reader = run.tools.start_load(
                    "store", "--op", op, "--connections", 1, "--clients", 1,
                    "--seconds", run.seconds * 2, "--endpoints", store.clients[0])
                found[kind.name][op] = _one(run, store, "put", 8, 64)
                found[kind.name][f"{op}s"] = run.tools.finish_load(reader)
    figures = [Figure("alone: p99", "ms", _values(found, "alone", "p99_ms"))]
    for op in ("range", "snapshot"):
        figures += [
            Figure(f"beside {op}s", "1/s", _values(found, op, "per_second")),
            Figure(f"beside {op}s: p99", "ms",
                   _values(found, op, "p99_ms")).reach("≤ 0.5 ×", 0.5, of="etcd"),
            Figure(f"a {op}: p50", "ms", _values(found, f"{op}s", "p50_ms")),
        ]
    title = "puts of 64 clients beside a reader of 100,000 keys"
    return Section(title, ["etcd"], figures)


def measure_million(run):
    """A million keys of 256 bytes: memory, and a member's restart until it serves."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("million") / kind.name)
            store.leader()
            run.say(f"million: {kind.name}")
            filled = store.load("fill", "--keys", MILLION)
            resident = store.resident_mb()
            store.stop()
            began = time.monotonic()
            for at in range(store.count):
                store.restart(at)
            store.leader()
            restart = time.monotonic() - began
            found[kind.name] = {"fill": filled["seconds"], "resident": resident,
                                "restart": restart, "again": store.resident_mb()}
    values = lambda field: {name: one[field] for name, one in found.items()}
    figures = [
        Figure("written in transactions of 100 puts", "s", values("fill")),
        Figure("resident, the largest member", "MB",
               values("resident")).reach("≤ 1.0 ×", 1, of="etcd"),
        Figure("all three restarted, until each takes a put", "s",
               values("restart")).reach("≤ 5 s", 5).reach("≤ etcd", 1, of="etcd"),
        Figure("resident then", "MB", values("again")),
    ]
    return Section("a million keys of 256 B", ["etcd"], figures)


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
