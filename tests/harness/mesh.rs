//! Nodes as processes on addresses of their own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::skein::{self, Ran};
use super::{PATIENCE, Subnet, until, until_some};

/// Some nodes that know each other as seeds.
pub(crate) struct Mesh {
    /// The nodes, running or not. They end before what they use is gone.
    pub(crate) nodes: Vec<Node>,
    /// Their addresses.
    pub(crate) subnet: Subnet,
    /// Their data and logs.
    pub(crate) dir: TempDir,
}

/// One node.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its address; all ports are the documented ones.
    pub(crate) ip: IpAddr,
    /// Its data directory.
    pub(crate) data: PathBuf,
    log: PathBuf,
    access_log: PathBuf,
    arguments: Vec<String>,
    /// How `skein` commands reach it: their arguments for TLS.
    pub(crate) tls: Vec<String>,
    child: Option<Child>,
}

impl Mesh {
    /// `count` nodes that found one mesh; returns when it can write.
    pub(crate) fn start(count: usize) -> Self {
        let mut mesh = Self::prepare(count);
        for node in &mut mesh.nodes {
            node.start();
        }
        mesh.wait_formed();
        mesh
    }

    /// `count` nodes that were never started.
    pub(crate) fn prepare(count: usize) -> Self {
        let subnet = Subnet::claim();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let key = dir.path().join("gossip.key");
        skein::skein(&["keygen", "-o", key.to_str().expect("UTF-8")]).ok();
        let ips: Vec<IpAddr> = (1..=count)
            .map(|n| subnet.ip(u8::try_from(n).expect("few nodes")).into())
            .collect();
        let seeds: Vec<String> = ips.iter().map(|ip| format!("{ip}:7946")).collect();
        let nodes = ips.iter().enumerate().map(|(at, &ip)| {
            let mut node = Node::new(&format!("n{}", at + 1), ip, dir.path());
            node.arguments
                .extend(["--gossip-key-file".into(), key.display().to_string()]);
            if count > 1 {
                node.arguments
                    .extend(["--bootstrap-expect".into(), count.to_string()]);
                node.arguments.extend(["--join".into(), seeds.join(",")]);
            }
            node
        });
        let nodes = nodes.collect();
        Self { subnet, dir, nodes }
    }

    /// Waits until all running nodes are in one mesh with a leader.
    pub(crate) fn wait_formed(&self) {
        let count = self.running().count();
        let formed = |status: Option<Value>| {
            status.is_some_and(|status| {
                status["has_quorum"] == true && living(&status).len() == count
            })
        };
        until("the running nodes form one mesh", || {
            self.running().all(|node| formed(node.overview()))
        });
        until("all of them answer clients", || {
            self.running().all(|node| formed(node.status()))
        });
    }

    /// All client addresses, as `--endpoints` takes them.
    pub(crate) fn endpoints(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(Node::client).collect();
        all.join(",")
    }

    /// Runs a `skein` command against the whole mesh.
    pub(crate) fn skein(&self, arguments: &[&str]) -> Ran {
        let endpoints = self.endpoints();
        let tls: Vec<&str> = self.nodes[0].tls.iter().map(String::as_str).collect();
        skein::skein(&[arguments, &tls, &["--endpoints", &endpoints]].concat())
    }

    /// Applies this YAML and waits until it is in force on all living nodes.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> Ran {
        self.try_apply(yaml, &["--wait"]).ok()
    }

    /// Applies this YAML with more arguments.
    pub(crate) fn try_apply(&self, yaml: &str, arguments: &[&str]) -> Ran {
        let file = tempfile::Builder::new()
            .suffix(".yaml")
            .tempfile_in(self.dir.path());
        let file = file.expect("a temporary file");
        std::fs::write(file.path(), yaml).expect("written");
        let path = file.path().to_str().expect("UTF-8");
        self.skein(&[&["apply", "-f", path], arguments].concat())
    }

    /// Runs `skein` against the whole mesh with `input` on its standard input.
    pub(crate) fn skein_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let endpoints = self.endpoints();
        skein::skein_with_input(&[arguments, &["--endpoints", &endpoints]].concat(), input)
    }

    /// The addresses of the proxies of all nodes at this port.
    pub(crate) fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.at(port)).collect()
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.child.is_some())
    }

    /// Waits until every running node sees all of them SYNCED at one revision.
    pub(crate) fn wait_synced(&self) {
        let count = self.running().count();
        until("all running nodes are SYNCED at one revision", || {
            self.running().all(|node| {
                node.overview().is_some_and(|status| {
                    let living = living(&status);
                    living.len() == count
                        && living.iter().all(|node| {
                            node["state"] == "SYNCED"
                                && node["config_revision"] == status["config_revision"]
                        })
                })
            })
        });
    }

    /// The place of the leader.
    pub(crate) fn leader(&self) -> usize {
        until_some("there is a leader", || {
            let name = self.nodes.iter().find_map(Node::overview)?["leader"]
                .as_str()?
                .to_owned();
            self.nodes.iter().position(|node| node.name == name)
        })
    }
}

impl Node {
    /// A node that was never started: alone, without seeds.
    pub(crate) fn new(name: &str, ip: IpAddr, dir: &Path) -> Self {
        let data = dir.join(name);
        let mut arguments = vec!["--name".to_owned(), name.to_owned()];
        arguments.extend(["--data-dir".into(), data.display().to_string()]);
        for (flag, port) in [
            ("client", 2379),
            ("peer", 2380),
            ("gossip", 7946),
            ("admin", 9901),
        ] {
            arguments.extend([format!("--{flag}-addr"), format!("{ip}:{port}")]);
        }
        arguments.extend([
            "--proxy-ip".into(),
            ip.to_string(),
            "--workers".into(),
            "1".into(),
        ]);
        let log = dir.join(format!("{name}.log"));
        Self {
            name: name.to_owned(),
            ip,
            data,
            access_log: log.with_extension("access"),
            log,
            arguments,
            tls: Vec::new(),
            child: None,
        }
    }

    /// Adds arguments for the next start.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&one| one.to_owned()));
        self
    }

    /// Gives a flag another value for the next start.
    pub(crate) fn set(mut self, flag: &str, value: &str) -> Self {
        let at = self.arguments.iter().position(|one| one == flag);
        self.arguments[at.expect("a flag that it has") + 1] = value.to_owned();
        self
    }

    /// Starts it; its logs are appended to. It ends with the thread that started it, so that a test
    /// that is killed leaves nothing behind.
    pub(crate) fn start(&mut self) {
        self.start_by(skein::command());
    }

    /// Starts it as another build of the product.
    pub(crate) fn start_as(&mut self, program: &Path) {
        self.start_by(skein::command_of(program));
    }

    /// Starts it through a shell that runs `before` first, such as a limit or a trap.
    pub(crate) fn start_after(&mut self, before: &str) {
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
            .arg(skein::command().get_program())
            .env_remove("SKEIN_LOG")
            .stdin(Stdio::null());
        self.start_by(shell);
    }

    fn start_by(&mut self, mut command: std::process::Command) {
        let open = |path: &Path| {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(path);
            file.expect("a log file")
        };
        let child = command
            .arg("node")
            .args(&self.arguments)
            .env("SKEIN_PARENT_PID", std::process::id().to_string())
            .stdout(open(&self.access_log))
            .stderr(open(&self.log))
            .spawn();
        self.child = Some(child.expect("the node starts"));
    }

    /// Runs it to an end that should come by itself, such as a refusal to start; killed when it
    /// does not come.
    pub(crate) fn run_to_end(&self) -> Ran {
        let mut command = skein::command();
        command.arg("node").args(&self.arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("skein runs");
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("asked").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("killed");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait_with_output().expect("its output").into()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for its end, which was asked for, and its exit status.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("it runs").wait().expect("it ends")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.as_ref().expect("it runs").id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(id).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// Whether its process runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().expect("asked").is_none())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its client address.
    pub(crate) fn client(&self) -> String {
        format!("{}:2379", self.ip)
    }

    /// An address of its proxy.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its access log so far.
    pub(crate) fn access_log(&self) -> String {
        std::fs::read_to_string(&self.access_log).unwrap_or_default()
    }

    /// Runs a `skein` command against this node alone.
    pub(crate) fn skein(&self, arguments: &[&str]) -> Ran {
        let tls: Vec<&str> = self.tls.iter().map(String::as_str).collect();
        skein::skein(&[arguments, &tls, &["--endpoints", &self.client()]].concat())
    }

    /// What it says of all nodes; `None` while it does not answer.
    pub(crate) fn status(&self) -> Option<Value> {
        let ran = self.skein(&["status", "-o", "json", "--timeout", "2s"]);
        (ran.code == 0).then(|| ran.json())
    }

    /// The same from its admin address: a request and no process, for whoever asks again and again.
    pub(crate) fn overview(&self) -> Option<Value> {
        let page = self.admin("/status")?;
        (page.status == 200).then(|| serde_json::from_str(&page.body).expect("JSON"))
    }

    /// What it says of the node called `name`.
    pub(crate) fn status_of(&self, name: &str) -> Option<Value> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array()?;
        nodes.iter().find(|node| node["name"] == name).cloned()
    }

    /// Whether it thinks this endpoint, to which `url` may go, `healthy`, `unhealthy` or `unknown`.
    pub(crate) fn verdict(&self, url: &str, endpoint: SocketAddr) -> Option<String> {
        let ran = self.skein(&["explain", url, "-o", "json", "--timeout", "2s"]);
        let explained = (ran.code == 0).then(|| ran.json())?;
        let targets = explained["chosen"]["targets"].as_array()?.iter();
        let mut endpoints = targets.flat_map(|target| target["endpoints"].as_array().unwrap());
        let found = endpoints.find(|one| one["address"] == endpoint.to_string())?;
        Some(found["health"]["verdict"].as_str()?.to_owned())
    }

    /// The sum of its samples of a metric whose line starts with `start`.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let page = self.admin("/metrics").map(|answer| answer.body);
        let page = page.unwrap_or_default();
        let samples = page.lines().filter(|line| line.starts_with(start));
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Its admin page.
    pub(crate) fn admin(&self, path: &str) -> Option<super::Answer> {
        super::get(self.at(9901), "admin", path).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {} ---", self.name);
            for line in &lines[lines.len().saturating_sub(15)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// The nodes of a status that are not DOWN.
pub(crate) fn living(status: &Value) -> Vec<&Value> {
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes
        .iter()
        .filter(|node| node["state"] != "DOWN")
        .collect()
}
