"""The HTTP rows: a plain HTTP/1.1 proxy in front of one upstream, one worker each.

Owns the peers' configs. Proxies take turns, several rounds, so that whatever else the machine does
meets all of them; the figures are medians.
"""

import re
import subprocess
import urllib.error
import urllib.request

from . import members
from .process import BenchError, cpu_seconds, free_port, resident_mb, wait_for
from .table import OURS, Figure, Section, medians

ANSWER = "skein bench: forty-eight bytes make this answer.\\n"

UPSTREAM = """
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log {folder}/upstream.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{upstream} backlog=4096; location / {{ return 200 "{answer}"; }} }}
}}
"""

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{port}
  default_backend up
backend up
  http-reuse always
  server up 127.0.0.1:{upstream}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: up }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: up
    type: STATIC
    load_assignment:
      cluster_name: up
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }} }}] }}]
"""

SKEIN = """
kind: Listener
name: bench
bind: "127.0.0.1:{port}"
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


def measure(run):
    """The table of all proxies that this machine has."""
    wrk, nginx = run.tools.need("wrk"), run.tools.need("nginx")
    folder, upstream = run.folder("http"), free_port()
    write = lambda name, text, port: _write(
        folder / name, text.format(folder=folder, port=port, upstream=upstream, answer=ANSWER))
    with run.stage() as stage:
        config = write("upstream.conf", UPSTREAM, upstream)
        stage.start("upstream", [nginx, "-p", folder, "-c", config], folder / "upstream.log")
        proxies = {"direct": (None, upstream)}

        def add(name, file, text, command):
            if run.tools.has(name):
                port = free_port()
                config = write(file, text, port)
                command = [part if part else config for part in command]
                proxies[name] = (stage.start(name, command, folder / f"{file}.log"), port)

        paths = run.tools.paths
        add("nginx", "nginx.conf", NGINX, [paths["nginx"], "-p", folder, "-c", None])
        add("HAProxy", "haproxy.cfg", HAPROXY, [paths["HAProxy"], "-db", "-f", None])
        add("Envoy", "envoy.yaml", ENVOY, [paths["Envoy"], "--concurrency", "1",
                                           "--log-level", "error", "-c", None])
        port = free_port()
        skein = members.Skein(stage, run.tools, folder / "skein", count=1)
        skein.leader()
        skein.apply(SKEIN.format(port=port, upstream=upstream))
        proxies[OURS] = (skein.processes[0], port)
        for name, (_, port) in proxies.items():
            wait_for(f"an answer through {name}", lambda: _answers(port))
        rounds = {name: [] for name in proxies}
        for turn in range(run.rounds):
            for name, (process, port) in proxies.items():
                run.say(f"http: {name}, round {turn + 1} of {run.rounds}")
                rounds[name].append(_one(wrk, process, port, run.seconds))
    return _section({name: medians(found) for name, found in rounds.items()})


def _section(found):
    values = lambda field: {name: one[field] for name, one in found.items() if field in one}
    cpu = Figure("CPU per request", "µs", values("cpu"))
    cpu.reach("≤ 1.4 × nginx", 1.4, of="nginx").reach("≤ 0.5 × Envoy", 0.5, of="Envoy")
    figures = [
        cpu,
        Figure("requests", "1/s", values("per_second")),
        Figure("p50", "ms", values("p50")),
        Figure("p99", "ms", values("p99")),
        Figure("resident", "MB", values("resident")),
    ]
    return Section("HTTP/1.1", ["direct", "nginx", "HAProxy", "Envoy"], figures)


def _one(wrk, process, port, seconds):
    """One run of wrk against one proxy, after a short one that warms up."""
    url = f"http://127.0.0.1:{port}/"
    _wrk(wrk, url, 1)
    before = cpu_seconds([process]) if process else 0
    found = _wrk(wrk, url, seconds)
    if process:
        found["cpu"] = (cpu_seconds([process]) - before) / found["requests"] * 1e6
        found["resident"] = resident_mb(process)
    return found


def _wrk(wrk, url, seconds):
    command = [wrk, "-t1", "-c64", f"-d{seconds:g}s", "--latency", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    faults = re.findall(r"(Non-2xx.*|Socket errors.*)", out)
    if faults:
        raise BenchError(f"wrk against {url}: {'; '.join(faults)}")
    number = lambda pattern: float(re.search(pattern, out).group(1))
    millis = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    latency = lambda share: next(
        float(value) * millis[unit]
        for value, unit in re.findall(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)$", out, re.M))
    return {"requests": number(r"(\d+) requests in"), "per_second": number(r"Requests/sec:\s+(\S+)"),
            "p50": latency(50), "p99": latency(99)}


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _write(path, text):
    path.write_text(text)
    return path
