"""Three members of a store on this machine: etcd's or Skein's.

Owns their addresses, folders and start. Both fsync what they acknowledge, with default settings.
"""

import json
import pathlib
import socket
import subprocess

from .process import BenchError, cpu_seconds, free_port, resident_mb, wait_for

# A mesh's nodes differ in the address that their listeners bind.
PROXY_IPS = ["127.0.0.21", "127.0.0.22", "127.0.0.23"]


class Members:
    """What etcd's and Skein's members have in common."""

    name = None

    def __init__(self, stage, tools, folder, count=3, start=True):
        self.stage, self.tools, self.count = stage, tools, count
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.clients = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        self.peers = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        self.prepare()
        self.processes = [self.start(at) for at in range(count)] if start else []

    def prepare(self):
        """Whatever must exist before the first start."""

    def start(self, at):
        return self.stage.start(
            f"{self.name} member {at + 1}", self.command(at), self.folder / f"{at + 1}.log")

    def restart(self, at):
        self.processes[at] = self.start(at)

    def leader(self, seconds=60):
        """The leader's place, once every member takes writes."""
        for process in self.processes:
            process.check()
        return self.tools.load("leader", "--endpoints", ",".join(self.clients),
                               "--seconds", seconds)["leader"]

    def load(self, *arguments, endpoints=None):
        """Runs a load, on all members unless said otherwise, and adds what it cost them."""
        before = cpu_seconds(self.processes)
        endpoints = ",".join(endpoints or self.clients)
        figures = self.tools.load(*arguments, "--endpoints", endpoints)
        figures["cpu_seconds"] = cpu_seconds(self.processes) - before
        return figures

    def resident_mb(self):
        return max(resident_mb(process) for process in self.processes)

    def stop(self):
        for process in self.processes:
            process.stop()


class Etcd(Members):
    name = "etcd"

    def command(self, at):
        cluster = ",".join(f"m{at + 1}=http://{peer}" for at, peer in enumerate(self.peers))
        client, peer = f"http://{self.clients[at]}", f"http://{self.peers[at]}"
        return [self.tools.need("etcd"), "--name", f"m{at + 1}",
                "--data-dir", self.folder / f"m{at + 1}",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", cluster, "--initial-cluster-state", "new"]


class Skein(Members):
    name = "Skein"

    def prepare(self):
        self.key = self.folder / "gossip.key"
        self.admins = [f"127.0.0.1:{free_port()}" for _ in range(self.count)]
        self.gossips = [f"127.0.0.1:{free_port(kind=socket.SOCK_DGRAM)}"
                        for _ in range(self.count)]
        self.proxy_port = free_port()
        self.ask("keygen", "-o", self.key)

    def command(self, at):
        others = [gossip for place, gossip in enumerate(self.gossips) if place != at]
        join = ["--join", ",".join(others)] if others else []
        return [self.tools.skein, "node", "--name", f"m{at + 1}",
                "--data-dir", self.folder / f"m{at + 1}",
                "--client-addr", self.clients[at], "--peer-addr", self.peers[at],
                "--gossip-addr", self.gossips[at], "--admin-addr", self.admins[at],
                "--bootstrap-expect", self.count, *join, "--gossip-key-file", self.key,
                "--proxy-ip", PROXY_IPS[at], "--workers", 1]

    def proxies(self):
        """The address of the listener with `bind: ":<proxy_port>"` on every node."""
        return [f"{ip}:{self.proxy_port}" for ip in PROXY_IPS[:self.count]]

    def all_vote(self):
        """Waits until no member is a learner any more."""
        wait_for("all members vote", lambda: not any(
            member["role"] == "learner" for member in json.loads(self.ask(
                "member", "list", "-o", "json", "--endpoints", self.clients[0]))["members"]), 120)

    def ask(self, *arguments):
        """Runs a command of the CLI."""
        done = subprocess.run([str(part) for part in (self.tools.skein, *arguments)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"skein {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, text):
        """Applies config, and returns when it is committed."""
        path = self.folder / "applied.yaml"
        path.write_text(text)
        self.ask("apply", "-f", path, "--endpoints", ",".join(self.clients))
