//! A proxy with one route, for measuring the request path alone.
//!
//! `one_route LISTEN UPSTREAM [WORKERS]`: what it serves is compiled by hand; no store, no mesh.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::compiled::{
    Action, Balance, Cluster, CompiledConfig, Defaults, Endpoint, HeaderChanges, HttpListener,
    Limits, Listener, Protocol, ResourceName, RetryPolicy, Rewrite, Route, Split, SplitTarget,
};
use proxy_config::{Conditions, Domain, Router, VirtualHost};
use proxy_server::{ProxyOptions, ProxyServer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn name(name: &str) -> ResourceName {
    ResourceName {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn config(listen: SocketAddr, upstream: SocketAddr) -> CompiledConfig {
    let cluster = Arc::new(Cluster {
        name: name("upstream"),
        key: "default/upstream".into(),
        endpoints: Box::new([Endpoint {
            address: upstream,
            weight: 1,
            zone: None,
            priority: 0,
            labels: Default::default(),
        }]),
        balance: Balance::LeastRequest,
        probe: None,
        tls: None,
        limits: Limits {
            connections: 1024,
            pending: 1024,
            retries: 3,
            retry_budget: 20,
        },
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        connections: Default::default(),
        panic_threshold: 50,
        minimum_ring_size: 1024,
        hash_balance_factor: None,
        slow_start: None,
        subsets: None,
        outlier: None,
        prefer_zone: false,
        http: Default::default(),
        overprovisioning_factor: 140,
        headers: HeaderChanges::default(),
    });
    let route = Arc::new(Route {
        virtual_host: name("all"),
        index: 0,
        action: Action::Forward(Split {
            targets: Box::new([SplitTarget {
                upto: 1,
                cluster: cluster.clone(),
            }]),
            total: 1,
        }),
        rewrite: Rewrite::default(),
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        max_stream_duration: None,
        grpc_timeout_max: None,
        retry: RetryPolicy::BUILT_IN,
        hash: Box::new([]),
        mirror: Box::new([]),
        subset: None,
        headers: Default::default(),
    });
    let routes = vec![(Conditions::default(), route)];
    let all = VirtualHost::new(name("all"), [Domain::Any], routes);
    let listener = Arc::new(Listener {
        name: name("edge"),
        bind: listen,
        proxy_protocol: None,
        tls: None,
        protocol: Protocol::Http(HttpListener {
            router: Arc::new(Router::new([Arc::new(all)])),
            headers: HeaderChanges::default(),
        }),
    });
    CompiledConfig {
        listeners: [(listener.name.clone(), listener)].into(),
        clusters: [(cluster.name.clone(), cluster)].into(),
        defaults: Arc::new(Defaults::default()),
        ..CompiledConfig::default()
    }
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
    for outcome in proxy.apply(Arc::new(config)).await {
        outcome.result?;
    }
    std::future::pending::<()>().await;
    Ok(())
}
