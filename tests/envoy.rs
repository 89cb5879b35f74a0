//! The same bytes to a real Envoy and to Skein, with the same config: what each upstream receives, and
//! what each client gets.
//!
//! Every difference is decided, and listed with its reason in `docs/http-behaviour.md`; one that is not
//! listed fails, and so does a listed one that is none any more. Needs Envoy: `tests/beside-envoy`.

mod cases;
mod client;
mod message;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Mesh, until};
use cases::Case;
use upstream::Upstream;

/// An Envoy in front of its upstream, as an edge proxy is set up.
struct Envoy {
    child: Child,
    address: SocketAddr,
}

impl Envoy {
    fn start(address: SocketAddr, upstream: SocketAddr, dir: &Path) -> Self {
        let program = std::env::var_os("SKEIN_ENVOY");
        let program = program.expect("SKEIN_ENVOY names Envoy; `tests/beside-envoy` sets it");
        let file = dir.join("envoy.yaml");
        std::fs::write(&file, config(address, upstream)).expect("written");
        let log = std::fs::File::create(dir.join("envoy.log")).expect("a log");
        let child = Command::new(program)
            .arg("--config-path")
            .arg(&file)
            .args([
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "warn",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let envoy = Self {
            child: child.expect("Envoy starts"),
            address,
        };
        until("Envoy listens", || TcpStream::connect(address).is_ok());
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Envoy's guide to edge proxies says, where it is about HTTP/1.
fn config(address: SocketAddr, upstream: SocketAddr) -> String {
    let socket = |address: SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("socket_address: {{ address: {ip}, port_value: {port} }}")
    };
    format!(
        r#"
static_resources:
  listeners:
  - address: {{ {} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          codec_type: HTTP1
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
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
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ {} }} }} }}] }}]
"#,
        socket(address),
        socket(upstream)
    )
}

fn skein_config(upstream: SocketAddr) -> String {
    format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{{ to: up, retry: {{ times: 0 }} }}]\n\
         ---\nkind: Cluster\nname: up\nendpoints: [\"{upstream}\"]\n"
    )
}

/// What became of a case: what the upstream got, then what the client got.
type Told = [Vec<String>; 2];

/// Plays all cases through one proxy.
fn play_all(proxy: SocketAddr, upstream: &Upstream, cases: &[Case]) -> Vec<Told> {
    // The first one is an ordinary request.
    upstream.expect(&cases[0].script);
    client::play(proxy, &cases[0]);
    let client = upstream::client_of(&upstream.seen()[0]);
    let play = |case: &Case| {
        upstream.expect(&case.script);
        let got = client::play(proxy, case);
        // Whether the request of a client that went away came through is a matter of moments.
        let heard = if case.half_closes {
            Vec::new()
        } else {
            upstream::told(&upstream.seen(), &client)
        };
        [heard, got]
    };
    cases.iter().map(play).collect()
}

/// The cases that `docs/http-behaviour.md` lists, in lines `- **one / another**: …`.
fn listed() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http-behaviour.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let entries = page.lines().filter_map(|line| line.strip_prefix("- **"));
    let names = entries.filter_map(|entry| entry.split_once("**"));
    let names = names.flat_map(|(names, _)| names.split(" / "));
    names.map(str::to_owned).collect()
}

#[test]
#[ignore = "needs Envoy: tests/beside-envoy gets it and runs this"]
fn envoy_and_skein_treat_the_same_bytes_alike() {
    let mesh = Mesh::start(1);
    let ip = mesh.subnet.ip(9);
    let [theirs, ours] = [(); 2].map(|()| Upstream::start(ip.into()));
    let envoy = Envoy::start((ip, 8080).into(), theirs.address, mesh.dir.path());
    mesh.apply(&skein_config(ours.address));
    let cases = cases::all();
    let names: BTreeSet<&str> = cases.iter().map(|case| &*case.name).collect();
    assert_eq!(names.len(), cases.len(), "each name once");
    let [theirs, ours] = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| play_all(envoy.address, &theirs, &cases));
        let ours = play_all(mesh.nodes[0].at(8080), &ours, &cases);
        [theirs.join().expect("it ends"), ours]
    });
    let listed = listed();
    let mut wrong = BTreeMap::new();
    for ((case, envoy), skein) in cases.iter().zip(&theirs).zip(&ours) {
        if (envoy == skein) == listed.contains(&case.name) {
            wrong.insert(&case.name, (envoy, skein));
        }
    }
    for (name, ([to, from], [our_to, our_from])) in &wrong {
        eprintln!("## {name}");
        for (what, envoy, skein) in [("upstream", to, our_to), ("client", from, our_from)] {
            if envoy == skein {
                eprintln!("  both {what}s: {envoy:?}");
            } else {
                eprintln!("  Envoy's {what}: {envoy:?}\n  Skein's {what}: {skein:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases are not as listed", wrong.len());
    let unknown: Vec<_> = listed
        .iter()
        .filter(|name| !names.contains(&***name))
        .collect();
    assert!(
        unknown.is_empty(),
        "listed, but there is no such case: {unknown:?}"
    );
}
