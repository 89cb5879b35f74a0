"""The rows of the proxy: what a request, a handshake, a byte and an idle connection cost, one worker
each.

Owns the loads. Proxies take turns, several rounds, so that whatever else the machine does meets all
of them; the figures are medians.
"""

import concurrent.futures
import re
import socket
import subprocess
import time

from .process import BenchError, cpu_seconds, resident_mb, wait_for
from .proxies import Job, Lineup
from .table import OURS, Figure, Section, medians

PEERS = ["nginx", "HAProxy", "Envoy"]
IDLE = 9_000


def measure(run):
    """HTTP/1.1, 48 bytes, 64 connections."""
    found = _closed_loop(run, "http", Job(), direct=True)
    cpu = _cpu(found).reach("≤ 1.2 × nginx", 1.2, of="nginx").reach("≤ 0.35 × Envoy", 0.35, of="Envoy")
    return Section("HTTP/1.1", ["direct", *PEERS], [cpu, *_rates(found)])


def measure_log(run):
    """The same with a line of JSON for each request."""
    found = _closed_loop(run, "log", Job(log=True))
    cpu = _cpu(found).reach("≤ 1.2 × nginx", 1.2, of="nginx").reach("≤ 0.4 × Envoy", 0.4, of="Envoy")
    return Section("HTTP/1.1 with an access log", PEERS, [cpu, *_rates(found)])


def measure_tls(run):
    """TLS 1.3 in front, connections kept; then a connection for each request."""
    found = _closed_loop(run, "tls", Job(front="tls"))
    cpu = _cpu(found).reach("≤ 1.2 × nginx", 1.2, of="nginx").reach("≤ 0.4 × Envoy", 0.4, of="Envoy")
    anew = _closed_loop(run, "handshakes", Job(front="tls"), headers=["Connection: close"])
    per_second = {name: 1e6 / one["cpu"] for name, one in anew.items()}
    handshakes = Figure("connections with one request, per CPU second", "1/s", per_second)
    handshakes.reach("≥ nginx", 1, of="nginx", at_least=True)
    return Section("HTTP/1.1 over TLS 1.3, P-256", PEERS, [cpu, *_rates(found), handshakes])


def measure_h2(run):
    """HTTP/2 in front, plain and over TLS, HTTP/1.1 behind."""
    figures = []
    for front, words in (("h2c", "plain"), ("h2", "over TLS 1.3")):
        with run.stage() as stage:
            lineup = Lineup(run, stage, front, Job(front=front))
            found = _rounds(run, lineup, lambda process, port: _with_cpu(
                process, lambda seconds: _h2load(run, lineup.job.url(port), seconds), run.seconds))
        cpu = _cpu(found, f"{words}: CPU per request")
        cpu.reach("≤ 1.3 × HAProxy", 1.3, of="HAProxy").reach("≤ 0.4 × Envoy", 0.4, of="Envoy")
        figures += [cpu, Figure(f"{words}: requests", "1/s", _values(found, "per_second"))]
    return Section("HTTP/2 in, HTTP/1.1 out, 8 connections of 16 streams", PEERS, figures)


def measure_grpc(run):
    """Unary calls: HTTP/2 and trailers on both sides."""
    with run.stage() as stage:
        lineup = Lineup(run, stage, "grpc", Job(front="h2c", grpc=True))
        message = lineup.folder / "message"
        # An empty message, not compressed.
        message.write_bytes(bytes(5))
        call = [f"-d{message}", "-Hcontent-type: application/grpc", "-Hte: trailers"]
        for name, (_, port) in lineup.proxies.items():
            wait_for(f"a call through {name}", lambda: _succeeds(run, lineup.job.url(port), call))
        found = _rounds(run, lineup, lambda process, port: _with_cpu(
            process, lambda seconds: _h2load(run, lineup.job.url(port), seconds, call),
            run.seconds))
    cpu = _cpu(found, "CPU per call").reach("≤ 0.4 × Envoy", 0.4, of="Envoy")
    return Section("gRPC unary calls, 8 connections of 16 streams", PEERS,
                   [cpu, Figure("calls", "1/s", _values(found, "per_second"))])


def measure_pace(run):
    """HTTP/1.1 at half of what nginx can do, whoever is late."""
    with run.stage() as stage:
        lineup = Lineup(run, stage, "pace", Job())
        top = _wrk(run, lineup.job.url(lineup.proxies["nginx"][1]), run.seconds)["per_second"]
        rate = round(top / 2, -2)

        def one(_process, port):
            load = ["requests", "--endpoint", f"127.0.0.1:{port}", "--rate", rate,
                    "--connections", 32, "--seconds", run.seconds]
            return run.tools.load(*load)

        found = _rounds(run, lineup, one)
    figures = [Figure(name, "ms", _values(found, field)) for name, field in
               (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))]
    for figure in figures[1:]:
        figure.reach("≤ HAProxy", 1, of="HAProxy")
    return Section(f"HTTP/1.1, {rate:,.0f} requests/s", PEERS, figures)


def measure_routes(run):
    """10,000 routes to 2,000 clusters, the last route; beside one route."""
    found = {}
    for words, job in (("one", Job(names=("Envoy", OURS))),
                       ("many", Job(routes=10_000, clusters=2_000, names=("Envoy", OURS)))):
        found[words] = _closed_loop(run, f"routes-{words}", job)
    one, many = _cpu(found["one"], "one route: CPU per request"), _cpu(
        found["many"], "10,000 routes, 2,000 clusters: CPU per request")
    if OURS in one.values:
        many.reach("≤ 1.1 × one route", 1.1 * one.values[OURS])
    resident = Figure("10,000 routes, 2,000 clusters: resident", "MB",
                      _values(found["many"], "resident")).reach("≤ 0.3 × Envoy", 0.3, of="Envoy")
    return Section("routes", ["Envoy"], [one, many, resident])


def measure_bytes(run):
    """Bodies of 100 MB down, and the same through a TCP listener."""
    files = run.folder("files")
    (files / "large").write_bytes(b"skein" * 20_000_000)
    figures = []
    for words, job in (("HTTP", Job(file="large")),
                       ("TCP", Job(file="large", tcp=True, names=("HAProxy", "Envoy", OURS)))):
        with run.stage() as stage:
            lineup = Lineup(run, stage, f"bytes-{words}", job, files=files)
            found = _rounds(run, lineup, lambda process, port: _down(process, port, 8))
        figure = Figure(f"{words}: bytes per CPU second", "MB/s", _values(found, "per_cpu"))
        figures += [figure.reach("≥ HAProxy", 1, of="HAProxy", at_least=True),
                    Figure(f"{words}: resident", "MB", _values(found, "resident"))]
    return Section("bodies of 100 MB", PEERS, figures)


def measure_connections(run):
    """Connections that asked once and are idle. A process may have 20,000 files on many machines, and
    a proxy counts two for each connection."""
    with run.stage() as stage:
        lineup = Lineup(run, stage, "connections", Job())
        found = {name: [_idle(run, name, *where)] for name, where in lineup.proxies.items()}
        found = {name: medians(one) for name, one in found.items()}
    figure = Figure("memory per idle connection", "kB", _values(found, "each"))
    return Section(f"{IDLE:,} idle connections", PEERS, [figure.reach("≤ HAProxy", 1, of="HAProxy")])


def _closed_loop(run, name, job, headers=(), direct=False):
    """What wrk finds through each proxy."""
    with run.stage() as stage:
        lineup = Lineup(run, stage, name, job)
        if direct:
            lineup.proxies = {"direct": (None, lineup.upstream), **lineup.proxies}
        return _rounds(run, lineup, lambda process, port: _with_cpu(
            process, lambda seconds: _wrk(run, job.url(port), seconds, headers), run.seconds))


def _rounds(run, lineup, measure):
    """The medians of some rounds, in which all take turns."""
    rounds = {name: [] for name in lineup.proxies}
    for turn in range(run.rounds):
        for name, (process, port) in lineup.proxies.items():
            run.say(f"{lineup.folder.name}: {name}, round {turn + 1} of {run.rounds}")
            rounds[name].append(measure(process, port))
    return {name: medians(found) for name, found in rounds.items()}


def _with_cpu(process, load, seconds):
    """One run of a load against one proxy, after a short one that warms up."""
    load(1)
    before = cpu_seconds([process]) if process else 0
    found = load(seconds)
    if process:
        found["cpu"] = (cpu_seconds([process]) - before) / found["requests"] * 1e6
        found["resident"] = resident_mb(process)
    return found


def _values(found, field):
    return {name: one[field] for name, one in found.items() if field in one}


def _cpu(found, words="CPU per request"):
    return Figure(words, "µs", _values(found, "cpu"))


def _rates(found):
    return [Figure("requests", "1/s", _values(found, "per_second")),
            Figure("p50", "ms", _values(found, "p50")),
            Figure("p99", "ms", _values(found, "p99")),
            Figure("resident", "MB", _values(found, "resident"))]


def _wrk(run, url, seconds, headers=()):
    fields = [part for header in headers for part in ("-H", header)]
    command = [run.tools.need("wrk"), "-t1", "-c64", f"-d{seconds:g}s", "--latency", *fields, url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    faults = re.findall(r"(Non-2xx.*|Socket errors.*)", out)
    # wrk counts the end that it asked for as a read error.
    if faults and not headers:
        raise BenchError(f"wrk against {url}: {'; '.join(faults)}")
    number = lambda pattern: float(re.search(pattern, out).group(1))
    millis = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    latency = lambda share: next(
        float(value) * millis[unit]
        for value, unit in re.findall(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)$", out, re.M))
    return {"requests": number(r"(\d+) requests in"), "per_second": number(r"Requests/sec:\s+(\S+)"),
            "p50": latency(50), "p99": latency(99)}


def _succeeds(run, url, call):
    """Whether a call of gRPC does, which the status of HTTP does not tell."""
    run.tools.need("h2load")
    command = ["nghttp", "-v", *call, url]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "grpc-status: 0" in out


def _h2load(run, url, seconds, arguments=()):
    command = [run.tools.need("h2load"), "-c8", "-m16", f"-D{seconds:g}", *arguments, url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", out)
    succeeded, *bad = (int(number) for number in done.groups())
    # The streams under way at the end of the time count as failed.
    if not succeeded or sum(bad) > 8 * 16:
        raise BenchError(f"h2load against {url}: {done.group(0)}")
    return {"requests": succeeded, "per_second": succeeded / seconds}


def _down(process, port, times):
    """Reads 100 MB some times, two at a time."""
    before = cpu_seconds([process])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        read = sum(pool.map(lambda _: _read(port), range(times)))
    used = cpu_seconds([process]) - before
    return {"per_cpu": read / 1e6 / used, "resident": resident_mb(process)}


def _read(port):
    request = f"GET /large HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"
    buffer, total = bytearray(1 << 20), 0
    with socket.create_connection(("127.0.0.1", port), 30) as one:
        one.sendall(request.encode())
        while count := one.recv_into(buffer):
            total += count
    if total < 100_000_000:
        raise BenchError(f"a body of 100 MB ended after {total} bytes")
    return total


def _idle(run, name, process, port):
    """The memory that connections take which asked once."""
    before, open_ = resident_mb(process), []
    request = f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
    try:
        for at in range(IDLE):
            # An address has too few ports for all of them.
            one = socket.socket()
            one.bind((f"127.0.0.{2 + at % 4}", 0))
            one.settimeout(30)
            one.connect(("127.0.0.1", port))
            open_.append(one)
            one.sendall(request)
            if not one.recv(4096).startswith(b"HTTP/1.1 200"):
                raise BenchError(f"{name} does not answer each of many connections")
        run.say(f"connections: {name}")
        time.sleep(3)
        return {"each": (resident_mb(process) - before) * 1e3 / len(open_)}
    finally:
        for one in open_:
            one.close()
