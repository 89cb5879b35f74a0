"""One upstream and the proxies in front of it, all of the same kind of job.

Owns the peers' configs: one worker each, connections to the upstream kept. Measures nothing.
"""

import dataclasses
import subprocess
import urllib.error
import urllib.request

from . import members
from .process import free_port, wait_for
from .table import OURS

ANSWER = "skein bench: forty-eight bytes make this answer.\\n"


@dataclasses.dataclass
class Job:
    """What the proxies do."""

    # How clients speak: http, tls, h2c, h2 (over TLS).
    front: str = "http"
    # Whether each request is logged as JSON.
    log: bool = False
    # Calls of gRPC, HTTP/2 on both sides; the upstream is a store of ours, which answers health checks.
    grpc: bool = False
    # Bytes are passed on, whatever they say.
    tcp: bool = False
    # Routes and clusters; the last route is the one that requests take.
    routes: int = 1
    clusters: int = 1
    names: tuple = ("nginx", "HAProxy", "Envoy", OURS)
    # A file that the upstream serves, instead of 48 bytes for everything.
    file: str = ""

    @property
    def tls(self):
        return self.front in ("tls", "h2")

    @property
    def h2(self):
        return self.front in ("h2c", "h2")

    @property
    def path(self):
        """What requests ask for."""
        if self.grpc:
            return "/grpc.health.v1.Health/Check"
        return f"/r{self.routes - 1}/x" if self.routes > 1 else f"/{self.file}"

    def url(self, port):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{port}{self.path}"


class Lineup:
    """The upstream and every proxy that is installed: `proxies` is their process and port by name."""

    def __init__(self, run, stage, name, job, files=None):
        self.run, self.stage, self.job = run, stage, job
        self.folder, self.upstream = run.folder(name), free_port()
        if job.tls:
            _certificate(self.folder)
        if job.grpc:
            store = members.Skein(stage, run.tools, self.folder / "upstream", count=1)
            store.leader()
            self.upstream = int(store.clients[0].rsplit(":", 1)[1])
        else:
            upstream(run, stage, self.folder, self.upstream, files)
        self.proxies = {}
        start = {"nginx": self._nginx, "HAProxy": self._haproxy, "Envoy": self._envoy,
                 OURS: self._skein}
        for one in job.names:
            if one == OURS or run.tools.has(one):
                port = free_port()
                self.proxies[one] = (start[one](port), port)
        if not (job.h2 or job.tls):
            for one, (_, port) in self.proxies.items():
                wait_for(f"an answer through {one}", lambda: answers(job.url(port)))

    def _write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def _nginx(self, port):
        config = self._write("nginx.conf", nginx(self.job, self.folder, port, self.upstream))
        return self.stage.start("nginx", [self.run.tools.paths["nginx"], "-p", self.folder, "-c",
                                          config], self.folder / "nginx.log")

    def _haproxy(self, port):
        config = self._write("haproxy.cfg", haproxy(self.job, self.folder, port, self.upstream))
        return self.stage.start("HAProxy", [self.run.tools.paths["HAProxy"], "-db", "-f", config],
                                self.folder / "haproxy.log")

    def _envoy(self, port):
        config = self._write("envoy.yaml", envoy(self.job, self.folder, port, self.upstream))
        return self.stage.start("Envoy", [self.run.tools.paths["Envoy"], "--concurrency", "1",
                                          "--log-level", "error", "-c", config],
                                self.folder / "envoy.log")

    def _skein(self, port):
        store = members.Skein(self.stage, self.run.tools, self.folder / "skein", count=1)
        store.leader()
        store.apply(skein(self.job, self.folder, port, self.upstream))
        return store.processes[0]


def upstream(run, stage, folder, port, files=None):
    """Starts an nginx that gives 48 bytes for everything, or files."""
    content = f"root {files};" if files else f'return 200 "{ANSWER}";'
    config = folder / "upstream.conf"
    config.write_text(UPSTREAM.format(folder=folder, port=port, content=content))
    command = [run.tools.need("nginx"), "-p", folder, "-c", config]
    return stage.start("upstream", command, folder / "upstream.log")


def answers(url):
    """Whether there is a 200."""
    head = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(head, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _certificate(folder):
    """A self-signed one of P-256, its key, and both in one file for HAProxy."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "30", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    (folder / "both.pem").write_text(cert.read_text() + key.read_text())
    for file in (key, cert, folder / "both.pem"):
        file.chmod(0o644)


UPSTREAM = """
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log {folder}/upstream.err;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on;
  client_max_body_size 1g; client_body_buffer_size 128k;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {content} }} }}
}}
"""


def nginx(job, folder, port, upstream):
    words = (" ssl" if job.tls else "") + (" http2" if job.h2 else "")
    tls = f"""
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3; ssl_session_tickets off;""" if job.tls else ""
    log = f"""
  log_format bench escape=json '{{"time":"$time_iso8601","client":"$remote_addr",'
    '"method":"$request_method","host":"$host","path":"$request_uri","status":$status,'
    '"bytes_sent":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr",'
    '"user_agent":"$http_user_agent","request_id":"$request_id"}}';
  access_log {folder}/access.log bench;""" if job.log else "access_log off;"
    passed = ("grpc_pass grpc://up;" if job.grpc else
              'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";')
    return f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 16384; }}
http {{
  {log}
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_max_body_size 1g; proxy_request_buffering off; proxy_buffering on; proxy_max_temp_file_size 0;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}{words} backlog=4096;{tls}
    location / {{
      {passed}
    }}
  }}
}}
"""


def haproxy(job, folder, port, upstream):
    words = (f" ssl crt {folder}/both.pem ssl-min-ver TLSv1.3 no-tls-tickets" if job.tls else "")
    words += {"h2": " alpn h2", "h2c": " proto h2"}.get(job.front, "")
    log = """
  log stdout format raw local0
  log-format '{"time":"%tr","client":"%ci","method":"%HM","path":"%HU","status":%ST,"bytes_sent":%B,"duration":%Ta,"upstream":"%si:%sp","id":"%ID"}'
""" if job.log else ""
    return f"""
global
  nbthread 1
  maxconn 9800
defaults
  mode {"tcp" if job.tcp else "http"}
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  timeout http-keep-alive 600s
frontend in
  bind 127.0.0.1:{port}{words}{log}
  default_backend up
backend up
  {"" if job.tcp else "http-reuse always"}
  server up 127.0.0.1:{upstream}{" proto h2" if job.grpc else ""}
"""


def envoy(job, folder, port, upstream):
    address = lambda port: f"socket_address: {{ address: 127.0.0.1, port_value: {port} }}"
    protocol = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }""" if job.grpc else ""
    clusters = "".join(f"""
  - name: c{at}
    type: STATIC{protocol}
    load_assignment:
      cluster_name: c{at}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ {address(upstream)} }} }} }}] }}]"""
                       for at in range(job.clusters))
    prefixes = ["/"] if job.routes == 1 else [f"/r{at}/" for at in range(job.routes)]
    routes = "".join(
        f"\n              - {{ match: {{ prefix: {prefix} }}, route: {{ cluster: c{at % job.clusters} }} }}"
        for at, prefix in enumerate(prefixes))
    tls = f"""
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [{"h2" if job.h2 else "http/1.1"}]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: {folder}/cert.pem }}
              private_key: {{ filename: {folder}/key.pem }}""" if job.tls else ""
    log = f"""
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {folder}/envoy-access.log
              log_format:
                json_format: {{ time: "%START_TIME%", client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", method: "%REQ(:METHOD)%", host: "%REQ(:AUTHORITY)%", path: "%REQ(:PATH)%", status: "%RESPONSE_CODE%", flags: "%RESPONSE_FLAGS%", bytes_sent: "%BYTES_SENT%", duration: "%DURATION%", upstream: "%UPSTREAM_HOST%", user_agent: "%REQ(USER-AGENT)%", request_id: "%REQ(X-REQUEST-ID)%" }}""" if job.log else ""
    if job.tcp:
        filters = """
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: c0"""
    else:
        filters = f"""
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench{log}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}"""
    return f"""
static_resources:
  listeners:
  - address: {{ {address(port)} }}
    filter_chains:
    - filters:{filters}{tls}
  clusters:{clusters}
"""


def skein(job, folder, port, upstream):
    tls = f"""
tls:
  certificates: [{{ certificate_chain: {folder}/cert.pem, private_key: {folder}/key.pem }}]
  minimum_version: TLSv1_3""" if job.tls else ""
    clusters = "".join(
        f"---\nkind: Cluster\nname: c{at}\nendpoints: [\"127.0.0.1:{upstream}\"]\n"
        + ("http: h2\n" if job.grpc else "")
        for at in range(job.clusters))
    to = "\nto: c0" if job.tcp else ""
    listener = f"""
kind: Listener
name: bench
bind: "127.0.0.1:{port}"
protocol: {"tcp" if job.tcp else "http"}{to}{tls}
"""
    log = "---\nkind: Defaults\naccess_log: json\n" if job.log else ""
    if job.tcp:
        return listener + clusters
    return listener + log + skein_routes(job) + clusters


def skein_routes(job):
    """The virtual host; a thousand routes each, as one resource has a limit."""
    if job.routes == 1:
        return "---\nkind: VirtualHost\nname: bench\ndomains: [\"*\"]\nroutes: [{ to: c0 }]\n"
    routes = "".join(
        f"\n- {{ match: {{ path_prefix: /r{at} }}, to: c{at % job.clusters} }}"
        for at in range(job.routes))
    return f"---\nkind: VirtualHost\nname: bench\ndomains: [\"*\"]\nroutes:{routes}\n"
