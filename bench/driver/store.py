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

# Title, watchers, streams, keys, events per second in all (or one put after the other).
WATCHED = [("1,000 watchers, 20,000 events/s", 1_000, 12, 10, 20_000),
           ("10,000 watchers, 20,000 events/s", 10_000, 24, 10, 20_000),
           ("1,000 watchers of one key, closed loop", 1_000, 8, 1, None)]

# Operation, clients, how many: both stores do the same before their memory is compared.
EQUAL = [("put", 256, 80_000), ("get", 256, 80_000), ("serializable-get", 256, 80_000),
         ("txn", 64, 16_000), ("lease-grant", 64, 24_000)]

# Leases, time of each in seconds.
LEASES = [(100_000, 60), (100_000, 300)]

# The peer's fail-over has no goal of its own, and each takes it a second and more.
PEER_TURNS = 5

RANGE_KEYS = 100_000
MILLION = 1_000_000


def stores(run):
    """Ours and, where it is installed, etcd's."""
    return [members.Etcd] * run.tools.has("etcd") + [members.Skein]


def measure(run):
    """Every mode."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("store") / kind.name)
            store.leader()
            found[kind.name] = {mode: _one(run, store, *mode) for mode in MODES}
    return _section(found)


def _one(run, store, op, connections, clients):
    run.say(f"store: {store.name}, {op}, clients: {clients}")
    # One client would find the leader in one run and a follower, which asks it, in the next.
    only = [store.clients[store.leader()]] if clients == 1 else None
    figures = store.load("store", "--op", op, "--connections", connections,
                         "--clients", clients, "--seconds", run.seconds, endpoints=only)
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
            for title, watchers, streams, keys, pace in WATCHED:
                run.say(f"watch: {kind.name}, {title}")
                pace = ["--events-per-second", pace] if pace else []
                figures = store.load("watch", "--watchers", watchers, "--streams", streams,
                                     "--keys", keys, "--seconds", run.seconds, *pace)
                figures["cpu_us"] = figures["cpu_seconds"] / figures["events"] * 1e6
                found[kind.name][title] = figures
    figures = []
    for title, _, _, _, pace in WATCHED:
        if not pace:
            figures.append(Figure(title, "events/s", _values(found, title, "events_per_second")))
        figures += [
            Figure(f"{title}: p50", "ms", _values(found, title, "p50_ms")),
            Figure(f"{title}: p99", "ms",
                   _values(found, title, "p99_ms")).reach("≤ 0.5 ×", 0.5, of="etcd"),
            Figure(f"{title}: CPU of all members per event", "µs",
                   _values(found, title, "cpu_us")).reach("≤ 0.3 ×", 0.3, of="etcd"),
        ]
    return Section("watchers", ["etcd"], figures)


def measure_memory(run):
    """Resident memory after the same operations, however long each store took for them."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("memory") / kind.name)
            store.leader()
            empty = store.resident_mb()
            for op, clients, count in EQUAL:
                run.say(f"memory: {kind.name}, {count:,} of {op}")
                store.load("store", "--op", op, "--connections", 16, "--clients", clients,
                           "--ops", count)
            found[kind.name] = {"empty": empty, "loaded": store.resident_mb()}
    loaded = {name: one["loaded"] for name, one in found.items()}
    figures = [
        Figure("before, the largest member", "MB",
               {name: one["empty"] for name, one in found.items()}),
        Figure("after, the largest member", "MB", loaded).reach("≤ 0.5 ×", 0.5, of="etcd"),
    ]
    words = ", ".join(f"{count:,} × {op}" for op, _, count in EQUAL)
    return Section("resident memory", ["etcd"], figures, [f"In between: {words}."])


def measure_leases(run):
    """What keeping many leases alive costs a member."""
    found = {}
    for kind in stores(run):
        found[kind.name] = {}
        for count, ttl in LEASES:
            run.say(f"leases: {kind.name}, {count:,} of {ttl} s")
            with run.stage() as stage:
                folder = run.folder("leases") / f"{kind.name}-{ttl}"
                store = kind(stage, run.tools, folder)
                store.leader()
                pids = ",".join(str(process.pid) for process in store.processes)
                figures = store.load("leases", "--leases", count, "--ttl", ttl,
                                     "--seconds", 20, "--pids", pids)
                found[kind.name][ttl] = max(figures["cores"]) * 100
                found[kind.name][f"{ttl} all"] = sum(figures["cores"]) * 100
    figures = []
    for count, ttl in LEASES:
        title = f"{count:,} leases of {ttl} s, each kept alive every {ttl // 3} s"
        values = lambda field: {name: one[field] for name, one in found.items()}
        figures += [
            Figure(f"{title}: the busiest member", "% of a core", values(ttl)),
            Figure(f"{title}: all members", "% of a core", values(f"{ttl} all")),
        ]
        figures[-2].reach("≤ 5 %", 5)
    return Section("leases", ["etcd"], figures)


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
    """A million keys of 256 bytes: memory, a restart until it serves, a mesh from a snapshot."""
    found = {}
    for kind in stores(run):
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder("million") / kind.name)
            store.leader()
            run.say(f"million: {kind.name}")
            filled = store.load("fill", "--keys", MILLION)
            one = {"fill": filled["seconds"], "resident": store.resident_mb()}
            if kind is members.Skein:
                one["save"], one["size"], file = _saved(store)
            store.stop()
            run.say(f"million: {kind.name}, restart")
            began = time.monotonic()
            for at in range(store.count):
                store.restart(at)
            store.leader()
            one["restart"], one["again"] = time.monotonic() - began, store.resident_mb()
            one["one"] = _restarted(run, store)
            store.stop()
            if kind is members.Skein:
                run.say(f"million: {kind.name}, a mesh from its snapshot")
                one["restore"] = _restored(run, stage, file)
            found[kind.name] = one
    values = lambda field: {name: one[field] for name, one in found.items() if field in one}
    figures = [
        Figure("written in transactions of 100 puts", "s", values("fill")),
        Figure("resident, the largest member", "MB",
               values("resident")).reach("≤ 1.0 ×", 1, of="etcd"),
        Figure("one restarted, until it takes a put", "s",
               values("one")).reach("≤ 5 s", 5).reach("≤ etcd", 1, of="etcd"),
        Figure("all three restarted at once, until each takes a put", "s", values("restart")),
        Figure("resident then", "MB", values("again")),
        Figure("`skein snapshot save`", "s", values("save")),
        Figure("its file", "MB", values("size")),
        Figure("three empty machines from that file, until each takes a put", "s",
               values("restore")).reach("≤ 60 s", 60),
    ]
    return Section("a million keys of 256 B", ["etcd"], figures)


def _restarted(run, store):
    """Seconds from the start of a follower's process until it takes a put."""
    at = (store.leader() + 1) % store.count
    store.processes[at].stop()
    run.say(f"million: {store.name}, one restarts")
    began = time.monotonic()
    store.restart(at)
    store.leader()
    return time.monotonic() - began


def _saved(store):
    """Seconds, megabytes and path of a snapshot of the whole store."""
    file = store.folder / "saved.snapshot"
    began = time.monotonic()
    store.ask("snapshot", "save", file, "--endpoints", store.clients[0])
    return time.monotonic() - began, file.stat().st_size / 1e6, file


def _restored(run, stage, file):
    """Seconds from three empty data directories until each member of the new mesh takes a put."""
    store = members.Skein(stage, run.tools, run.folder("million") / "restored", start=False)
    began = time.monotonic()
    store.ask("snapshot", "restore", file, "--data-dir", store.folder / "m1")
    for at in range(store.count):
        store.processes.append(store.start(at))
    store.leader(seconds=120)
    store.all_vote()
    return time.monotonic() - began


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
    figures, notes = _failovers(run, "kill", run.failovers)
    figures[-1].reach("≤ 2 s", 2000)
    return Section("first put after kill -9 of the leader", ["etcd"], figures, notes)


def measure_stop(run):
    """The longest time without a put that succeeds while the leader ends after SIGTERM."""
    figures, notes = _failovers(run, "term", run.failovers)
    figures[-1].reach("≤ 0.2 s", 200)
    return Section("longest time without a write after SIGTERM", ["etcd"], figures, notes)


def _failovers(run, signal_, turns):
    found = {}
    for kind in stores(run):
        times = []
        with run.stage() as stage:
            store = kind(stage, run.tools, run.folder(f"failover-{signal_}") / kind.name)
            for turn in range(turns if kind is members.Skein else min(turns, PEER_TURNS)):
                leader = store.leader()
                # So that no member is still busy with the last fail-over.
                time.sleep(2)
                run.say(f"failover ({signal_}): {kind.name}, {turn + 1}")
                others = [client for at, client in enumerate(store.clients) if at != leader]
                figures = run.tools.load(
                    "failover", "--endpoints", ",".join(others),
                    "--leader", store.processes[leader].pid, "--signal", signal_)
                times.append(figures["without_writes_ms"])
                store.processes[leader].popen.wait()
                store.restart(leader)
            found[kind.name] = sorted(times)
    middle = Figure("the median", "ms",
                    {name: times[len(times) // 2] for name, times in found.items()})
    worst = Figure(f"the slowest of {turns} (etcd: {min(turns, PEER_TURNS)})", "ms",
                   {name: times[-1] for name, times in found.items()})
    notes = [f"{name}: {', '.join(f'{one:.0f}' for one in times)} ms"
             for name, times in found.items()]
    return [middle, worst], notes
