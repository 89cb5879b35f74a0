"""What only Skein does: config into force everywhere, an idle node, a boot from last-known-good."""

import contextlib
import pathlib
import socket
import threading
import time

from . import members, proxies
from .process import BenchError, cpu_seconds, family, free_port, pin
from .table import OURS, Figure, Section, percentile

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "config-examples/quickstart.yaml"

ANSWERING = """
kind: Listener
name: bench
bind: ":{port}"
protocol: http
---
kind: VirtualHost
name: bench
domains: ["*"]
routes: [{{ to: up }}]
---
kind: Cluster
name: up
endpoints: ["127.0.0.1:{upstream}"]
"""

# Beside the cluster that changes.
LARGE_ROUTES, LARGE_CLUSTERS = 10_000, 2_000

# Requests per second, far from what a worker can, and keys in the store.
CROWDED_RATE = 1_000
CROWDED_KEYS = 100_000

REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"


def measure_config(run):
    """From a config write to the traffic of all three nodes following it."""
    with run.stage() as stage:
        mesh = members.Skein(stage, run.tools, run.folder("config"))
        mesh.leader()
        run.say(f"config: {run.changes} changes")
        found = run.tools.load("config", "--endpoints", ",".join(mesh.clients),
                               "--proxies", ",".join(mesh.proxies()), "--runs", run.changes)
    figures = []
    for field, words in [("from_commit", "acknowledged"), ("from_write", "sent")]:
        for share in ("p50", "p99", "max"):
            name = f"from the write {words}: {share}"
            figures.append(Figure(name, "ms", {OURS: found[field][f"{share}_ms"]}))
    figures[1].reach("≤ 50 ms", 50)
    return Section("config in force on all three nodes", [], figures)


def measure_endpoints(run):
    """One endpoint changes in a large config: when it is in force everywhere, and what it costs."""
    figures = []
    for what, words in [("endpoint", "written in its cluster"), ("registration", "registered")]:
        with run.stage() as stage:
            mesh = members.Skein(stage, run.tools, run.folder(f"endpoints-{what}"))
            mesh.leader()
            mesh.apply(_large())
            run.say(f"endpoints: {run.changes} changes, {words}")
            pids = ",".join(str(process.pid) for process in mesh.processes)
            found = run.tools.load("config", "--endpoints", ",".join(mesh.clients),
                                   "--proxies", ",".join(mesh.proxies()), "--runs", run.changes,
                                   "--what", what, "--pids", pids)
        late = [Figure(f"{words}: from the write acknowledged, {share}", "ms",
                       {OURS: found["from_commit"][f"{share}_ms"]})
                for share in ("p50", "p99", "max")]
        late[1].reach("≤ 10 ms", 10)
        cost = Figure(f"{words}: CPU of the busiest node", "ms",
                      {OURS: max(found["cpu_ms_per_change"])})
        figures += [*late, cost.reach("≤ 5 ms", 5)]
    name = f"an endpoint changes, beside {LARGE_ROUTES:,} routes and {LARGE_CLUSTERS:,} clusters"
    return Section(name, [], figures)


def _large():
    routes = "".join(f"\n- {{ match: {{ path_prefix: /r{at} }}, to: c{at % LARGE_CLUSTERS} }}"
                     for at in range(LARGE_ROUTES))
    clusters = "".join(f"---\nkind: Cluster\nname: c{at}\nendpoints: [\"127.0.0.1:9\"]\n"
                       for at in range(LARGE_CLUSTERS))
    return f"kind: VirtualHost\nname: large\ndomains: [large.test]\nroutes:{routes}\n{clusters}"


def measure_crowded(run):
    """A node's traffic at a fixed rate while its store has nothing to do, takes as many puts as it
    can, or streams snapshots. The proxy's worker and what calls it have one core, the rest of the
    node and its clients the other."""
    folder = run.folder("crowded")
    found = {}
    with run.stage() as stage:
        upstream = free_port()
        traffic, control = {1}, {0}
        served = proxies.upstream(run, stage, folder, upstream)
        node = members.Skein(stage, run.tools, folder / "skein", count=1)
        node.leader()
        node.apply(ANSWERING.format(port=node.proxy_port, upstream=upstream))
        first_answer(members.PROXY_IPS[0], node.proxy_port)
        for pid in family(served.pid):
            pin(pid, lambda _: traffic)
        pin(node.processes[0].pid, lambda name: traffic if name.startswith("worker") else control)
        run.tools.load("fill", "--keys", CROWDED_KEYS, "--endpoints", node.clients[0])
        for name, op in [("idle", None), ("puts", "put"), ("snapshots", "snapshot")]:
            run.say(f"crowded: {name}")
            if op:
                busy = run.tools.start_load(
                    "store", "--op", op, "--connections", 8, "--clients", 64 if op == "put" else 1,
                    "--seconds", run.seconds * 2, "--endpoints", node.clients[0])
                pin(busy.pid, lambda _: control)
                time.sleep(run.seconds * 0.3)
            asking = run.tools.start_load(
                "requests", "--endpoint", node.proxies()[0], "--rate", CROWDED_RATE,
                "--seconds", run.seconds)
            pin(asking.pid, lambda _: traffic)
            found[name] = run.tools.finish_load(asking)
            if op:
                found[name]["busy"] = run.tools.finish_load(busy)["per_second"]
    idle = found["idle"]["p99_ms"]
    figures = [Figure("idle: p50", "ms", {OURS: found["idle"]["p50_ms"]}),
               Figure("idle: p99", "ms", {OURS: idle})]
    for name in ("puts", "snapshots"):
        figures += [Figure(f"beside {name}: p50", "ms", {OURS: found[name]["p50_ms"]}),
                    Figure(f"beside {name}: p99", "ms", {OURS: found[name]["p99_ms"]}),
                    Figure(f"{name} meanwhile", "1/s", {OURS: found[name]["busy"]})]
        figures[-2].reach("≤ 1.5 × idle", 1.5 * idle)
    title = f"a node's proxy beside its store, {CROWDED_RATE:,} requests/s"
    return Section(title, [], figures)


def measure_idle(run):
    """Resident memory of nodes that run the quickstart's config and have nothing to do."""
    with run.stage() as stage:
        mesh = members.Skein(stage, run.tools, run.folder("idle"))
        mesh.leader()
        text = QUICKSTART.read_text().replace(":8080", f":{mesh.proxy_port}")
        mesh.apply(text.replace(":9000", f":{free_port()}"))
        run.say(f"idle: {run.idle_seconds:g} s")
        time.sleep(run.idle_seconds)
        largest = mesh.resident_mb()
        cpu = cpu_seconds(mesh.processes)
        time.sleep(run.seconds)
        cpu = (cpu_seconds(mesh.processes) - cpu) / run.seconds / mesh.count
    values = [Figure("resident, the largest of 3 nodes", "MB", {OURS: largest}),
              Figure("CPU of one node", "% of a core", {OURS: cpu * 100})]
    values[0].reach("< 40 MB", 40)
    return Section(f"idle for {run.idle_seconds:g} s", [], values)


def measure_boot(run):
    """A node whose mesh is gone: from its start to the first request that it answers."""
    times = []
    with run.stage() as stage:
        upstream = socket.create_server(("127.0.0.1", 0), backlog=128)
        stage.callback(upstream.close)
        serve(upstream)
        mesh = members.Skein(stage, run.tools, run.folder("boot"))
        mesh.leader()
        mesh.apply(ANSWERING.format(port=mesh.proxy_port, upstream=upstream.getsockname()[1]))
        ip = members.PROXY_IPS[0]
        first_answer(ip, mesh.proxy_port)
        # Its last-known-good reaches the disk behind the traffic's back.
        time.sleep(2)
        for process in mesh.processes:
            process.kill()
        for turn in range(run.boots):
            run.say(f"boot: {turn + 1} of {run.boots}")
            began = time.monotonic()
            mesh.restart(0)
            times.append((first_answer(ip, mesh.proxy_port) - began) * 1000)
            mesh.processes[0].kill()
    values = [Figure("p50", "ms", {OURS: percentile(times, 50)}),
              Figure("the slowest", "ms", {OURS: max(times)})]
    values[1].reach("≤ 500 ms", 500)
    title = f"boot alone from last-known-good to the first answer, {run.boots} times"
    return Section(title, [], values)


def first_answer(ip, port, seconds=20.0):
    """When a request was first answered with 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((ip, port), timeout=5) as one:
                one.sendall(REQUEST)
                if one.recv(12).endswith(b"200"):
                    return time.monotonic()
        except OSError:
            pass
        time.sleep(0.001)
    raise BenchError(f"no answer at {ip}:{port} within {seconds:g} s")


def serve(upstream):
    """Answers every connection of the socket in a thread, which ends with the socket."""
    threading.Thread(target=_answer_all, args=[upstream], daemon=True).start()


def _answer_all(upstream):
    while True:
        try:
            one, _ = upstream.accept()
        except OSError:
            return
        with one, contextlib.suppress(OSError):
            one.settimeout(5)
            head = b""
            while b"\r\n\r\n" not in head:
                head += one.recv(65536)
            one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
