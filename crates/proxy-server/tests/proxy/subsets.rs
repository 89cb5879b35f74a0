//! Routes that want a subset of a cluster's endpoints.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::rig::{Backend, Rig, eventually};

/// Routes for `/v1`, `/v2` and `/v3` to the version of that name, and all others to any.
fn yaml(endpoints: [(SocketAddr, &str); 3], fallback: &str) -> String {
    let endpoints = endpoints.map(|(address, version)| {
        format!("{{ address: '{address}', labels: {{ version: {version} }} }}")
    });
    let routes = ["v1", "v2", "v3"].map(|version| {
        format!("{{ match: {{ path: /{version} }}, to: web, subset: {{ version: {version} }} }}")
    });
    format!(
        "kind: Listener\nname: edge\nbind: EDGE\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: ['*']\nroutes: [{}, {{ to: web }}]\n\
         ---\nkind: Cluster\nname: web\nbalance: round_robin\nendpoints: [{}]\n\
         subsets: {{ keys: [[version]], {fallback} }}\n",
        routes.join(", "),
        endpoints.join(", ")
    )
}

async fn homes(rig: &Rig, path: &str) -> BTreeSet<String> {
    let mut homes = BTreeSet::new();
    for _ in 0..12 {
        let response = rig.get(path).await;
        homes.insert(format!("{} {}", response.status, response.text()));
    }
    homes
}

#[tokio::test]
async fn a_copy_knows_nothing_of_the_routes_subset() {
    let (web, copies) = (Backend::saying("web").await, Backend::saying("copy").await);
    let endpoints = [web.address, web.address, web.address].map(|address| (address, "v1"));
    let yaml = yaml(endpoints, "").replace(
        "subset: { version: v1 }",
        "subset: { version: v1 }, mirror: [{ to: copies }]",
    );
    let twice = format!(
        ", {{ address: '{}', labels: {{ version: v1 }} }}",
        web.address
    );
    let yaml = yaml.replace(&twice, "");
    let cluster = format!(
        "---\nkind: Cluster\nname: copies\nendpoints: ['{}']\n",
        copies.address
    );
    let rig = Rig::start(&format!("{yaml}{cluster}")).await;
    assert_eq!(rig.get("/v1").await.text(), "web");
    eventually("the copy", || copies.seen().len() == 1).await;
}

#[tokio::test]
async fn a_route_reaches_its_subset_alone_and_falls_back_as_the_cluster_says() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let c = Backend::saying("c").await;
    let endpoints = [(a.address, "v1"), (b.address, "v2"), (c.address, "v2")];
    let mut rig = Rig::start(&yaml(endpoints, "fallback: any")).await;
    let set = |homes: &[&str]| {
        homes
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(homes(&rig, "/v1").await, set(&["200 a"]));
    assert_eq!(homes(&rig, "/v2").await, set(&["200 b", "200 c"]));
    assert_eq!(homes(&rig, "/v3").await, set(&["200 a", "200 b", "200 c"]));
    assert_eq!(homes(&rig, "/").await, set(&["200 a", "200 b", "200 c"]));

    rig.apply(&yaml(
        endpoints,
        "fallback: default, default: { version: v1 }",
    ))
    .await;
    assert_eq!(homes(&rig, "/v3").await, set(&["200 a"]));

    rig.apply(&yaml(endpoints, "fallback: none")).await;
    assert_eq!(rig.get("/v3").await.status, 503);
    rig.counts("http_downstream_rq_flags_total", "UH", 1.0)
        .await;
    assert_eq!(homes(&rig, "/v1").await, set(&["200 a"]));
}
