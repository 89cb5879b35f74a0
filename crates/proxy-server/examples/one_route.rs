//! A proxy with one route, for measuring the request path alone.
//!
//! `one_route LISTEN UPSTREAM [WORKERS]`: no store, no mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::ConfigRevision;
use proxy_config::compiled::{CompiledConfig, Target};
use proxy_config::{ConfigSet, compile, parse_documents};
use proxy_server::{ProxyOptions, ProxyServer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn config(listen: SocketAddr, upstream: SocketAddr) -> Arc<CompiledConfig> {
    let yaml = format!(
        "kind: Listener\nname: edge\nbind: \"{listen}\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{{ to: upstream }}]\n\
         ---\nkind: Cluster\nname: upstream\nendpoints: [\"{upstream}\"]\n"
    );
    let mut set = ConfigSet::default();
    for resource in parse_documents("one route", &yaml).expect("valid YAML") {
        set.insert(resource);
    }
    let target = Target {
        node: "one".parse().expect("a valid name"),
        labels: BTreeMap::new(),
        proxy_ip: listen.ip(),
    };
    compile(&set, &target, None, ConfigRevision(1)).config
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, rest @ ..] = &*arguments else {
        return Err("usage: one_route LISTEN UPSTREAM [WORKERS]".into());
    };
    let workers = rest.first().map_or(Ok(1), |count| count.parse())?;
    let proxy = ProxyServer::start(ProxyOptions {
        workers,
        ..ProxyOptions::default()
    })?;
    let config = config(listen.parse()?, upstream.parse()?);
    for outcome in proxy.apply(config).await {
        outcome.result?;
    }
    std::future::pending::<()>().await;
    Ok(())
}
