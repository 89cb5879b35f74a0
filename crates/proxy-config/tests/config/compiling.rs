//! What a node runs, and what stays the same when something changes.

use std::sync::Arc;
use std::time::Duration;

use model::ConfigRevision;
use proptest::prelude::*;
use proxy_config::compiled::{
    AccessLog, Balance, CompiledConfig, EscapedSlashes, GivenBy, ProbeKind, Protocol, RetryPolicy,
};
use proxy_config::{Compiled, ConfigSet, Kind, check, compile, diff};

use crate::{BASE, compiled, named, node, routed, set, with, without};

fn next(set: &ConfigSet, previous: &Compiled) -> Compiled {
    compile(set, &node("n1", &[]), Some(previous), ConfigRevision(2))
}

fn same<T>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other)
}

#[test]
fn defaults_are_envoys_or_safer() {
    let compiled = compiled(&with(
        &set(BASE),
        "{kind: Cluster, name: a, endpoints: [10.0.0.1:80], probe: {http: /h}}
---
{kind: Listener, name: raw, bind: ':81', protocol: tcp, to: a}",
    ));
    let a = &compiled.config.clusters[&named("a")];
    assert_eq!(
        (&*a.key, a.balance, a.panic_threshold),
        ("default/a", Balance::LeastRequest, 50)
    );
    assert_eq!(
        (a.connect_timeout.as_secs(), a.idle_timeout.as_secs()),
        (5, 3600)
    );
    let limits = &a.limits;
    assert_eq!(
        (
            limits.connections,
            limits.pending,
            limits.retries,
            limits.retry_budget
        ),
        (1024, 1024, 3, 20)
    );
    let probe = a.probe.as_ref().unwrap();
    assert_eq!(
        probe.kind,
        ProbeKind::Http {
            path: "/h".into(),
            host: None
        }
    );
    assert_eq!((probe.every.as_secs(), probe.timeout.as_secs()), (2, 1));
    assert_eq!((probe.unhealthy_after, probe.healthy_after), (2, 2));
    let web = &compiled.config.listeners[&named("web")];
    assert_eq!(web.bind.to_string(), "127.0.0.11:80");
    let hosts = web.router().unwrap().virtual_hosts();
    let (_, route) = &hosts[0].routes()[0];
    assert_eq!(
        (route.timeout, &route.retry),
        (Some(Duration::from_secs(15)), &RetryPolicy::BUILT_IN)
    );
    let Protocol::Tcp(raw) = &compiled.config.listeners[&named("raw")].protocol else {
        panic!()
    };
    assert_eq!(raw.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(
        *compiled.config.defaults,
        proxy_config::compiled::Defaults::default()
    );
}

#[test]
fn defaults_reach_routes_and_clusters_that_say_nothing() {
    let base = with(
        &set(BASE),
        "{kind: Cluster, name: b, endpoints: [10.0.0.2:80], connect_timeout: 7s}",
    );
    let first = compiled(&base);
    let changed = with(
        &base,
        "{kind: Defaults, route_timeout: 0s, connect_timeout: 1s, access_log: json, \
         escaped_slashes: keep, max_head_size: 8KiB, trusted_hops: 2}",
    );
    let second = next(&changed, &first);
    let defaults = &second.config.defaults;
    assert_eq!(
        (defaults.access_log, defaults.escaped_slashes),
        (AccessLog::Json, EscapedSlashes::Keep)
    );
    assert_eq!((defaults.max_head_bytes, defaults.trusted_hops), (8192, 2));
    assert_eq!(
        second.config.clusters[&named("a")]
            .connect_timeout
            .as_secs(),
        1
    );
    assert_eq!(
        second.config.clusters[&named("b")]
            .connect_timeout
            .as_secs(),
        7
    );
    let router = second.config.listeners[&named("web")].router().unwrap();
    assert_eq!(router.virtual_hosts()[0].routes()[0].1.timeout, None);
    // And back: what is deleted no longer counts.
    let third = next(&base, &second);
    assert_eq!(
        third.config.clusters[&named("a")].connect_timeout.as_secs(),
        5
    );
}

#[test]
fn retries_are_the_routes_or_the_defaults_or_built_in_and_can_be_off() {
    let routes = "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [
      {match: {path: /own}, to: a, retry: {when: [5xx], times: 4}},
      {match: {path: /off}, to: a, retry: {times: 0}},
      {to: b}]}";
    let policies = |compiled: &Compiled| {
        let router = compiled.config.listeners[&named("web")].router().unwrap();
        let hosts = router.virtual_hosts();
        let routes = hosts[0].routes().iter();
        let told = routes.map(|(_, route)| {
            let words: Vec<_> = route.retry.when.words().collect();
            (route.retry.given_by, route.retry.times, words.join(" "))
        });
        told.collect::<Vec<_>>()
    };
    let base = with(&set(BASE), routes);
    let first = compiled(&base);
    let own = (GivenBy::Route, 4, "5xx".to_owned());
    let off = (GivenBy::Route, 0, String::new());
    let built_in = (GivenBy::BuiltIn, 2, "connect-failure reset".to_owned());
    assert_eq!(policies(&first), [own.clone(), off.clone(), built_in]);
    // Defaults are for the route that says nothing, and off again is off for it alone.
    let changed = with(
        &base,
        "{kind: Defaults, retry: {when: [gateway-error], times: 1}}",
    );
    let second = next(&changed, &first);
    let mesh_wide = (GivenBy::Defaults, 1, "gateway-error".to_owned());
    assert_eq!(policies(&second), [own.clone(), off.clone(), mesh_wide]);
    let third = next(&with(&base, "{kind: Defaults, retry: {times: 0}}"), &second);
    let never = (GivenBy::Defaults, 0, String::new());
    assert_eq!(policies(&third), [own, off, never]);
    assert_eq!(policies(&next(&base, &third)), policies(&first));
}

#[test]
fn weights_become_cumulative_shares() {
    let compiled = compiled(&with(
        &set(BASE),
        "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{to: {a: 90, b: 10}}, {to: {a: 0, b: 3}}]}",
    ));
    let router = compiled.config.listeners[&named("web")]
        .router()
        .unwrap()
        .clone();
    let hosts = router.virtual_hosts();
    let split = hosts[0].routes()[0].1.action.to().unwrap();
    let chosen = |draw| split.choose(draw).name.to_string();
    assert_eq!(split.total, 100);
    assert_eq!(
        (chosen(0), chosen(89), chosen(90), chosen(99)),
        ("a".into(), "a".into(), "b".into(), "b".into())
    );
    assert_eq!(split.to_string(), "a 90, b 10");
    let rest = hosts[0].routes()[1].1.action.to().unwrap();
    assert_eq!((rest.targets.len(), rest.to_string().as_str()), (1, "b"));
}

#[test]
fn a_node_gets_what_its_name_or_labels_select() {
    let set = set("
{kind: Listener, name: web, bind: ':80', protocol: http}
---
{kind: Listener, name: edge, nodes: {tier: edge}, bind: ':81', protocol: http}
---
{kind: VirtualHost, name: h, nodes: [n1], domains: [h], routes: [{to: c}]}
---
{kind: Cluster, name: c, endpoints: [10.0.0.1:80]}
---
{kind: Cluster, name: d, nodes: {tier: edge, zone: a}, endpoints: [10.0.0.1:80]}
");
    let shape = |name: &str, labels: &[&str]| {
        let compiled = compile(&set, &node(name, labels), None, ConfigRevision(1));
        let hosts = |listener: &Arc<proxy_config::compiled::Listener>| {
            listener.router().unwrap().virtual_hosts().len()
        };
        let listeners: Vec<_> = compiled
            .config
            .listeners
            .iter()
            .map(|(name, listener)| format!("{name}:{}", hosts(listener)))
            .collect();
        (listeners.join(" "), compiled.config.clusters.len())
    };
    assert_eq!(shape("n1", &[]), ("web:1".into(), 1));
    assert_eq!(shape("n2", &[]), ("web:0".into(), 1));
    assert_eq!(shape("n1", &["tier=edge"]), ("edge:1 web:1".into(), 1));
    assert_eq!(
        shape("n2", &["tier=edge", "zone=a"]),
        ("edge:0 web:0".into(), 2)
    );
    // Another node's result is no base to go on from.
    let other = compile(&set, &node("n2", &[]), None, ConfigRevision(1));
    let mine = compile(&set, &node("n1", &[]), Some(&other), ConfigRevision(1));
    assert_eq!(routed(&mine, "h", "/").as_deref(), Some("c"));
}

#[test]
fn what_does_not_change_keeps_its_arc() {
    let base = with(
        &set(BASE),
        "{kind: VirtualHost, name: blog, domains: [blog.test], routes: [{to: b}]}
---
{kind: Listener, name: raw, bind: ':81', protocol: tcp, to: a}
---
{kind: Listener, name: raw2, bind: ':82', protocol: tcp, to: b}",
    );
    let one = compiled(&base);
    let again = next(&base, &one);
    let host = |compiled: &Compiled, name: &str| {
        let router = compiled.config.listeners[&named("web")]
            .router()
            .unwrap()
            .clone();
        let hosts = router.virtual_hosts();
        Arc::clone(
            hosts
                .iter()
                .find(|host| *host.name() == named(name))
                .unwrap(),
        )
    };
    let listener =
        |compiled: &Compiled, name: &str| compiled.config.listeners[&named(name)].clone();
    let cluster = |compiled: &Compiled, name: &str| compiled.config.clusters[&named(name)].clone();
    for name in ["web", "raw", "raw2"] {
        assert!(
            same(&listener(&one, name), &listener(&again, name)),
            "{name}"
        );
    }
    // An endpoint of cluster a: what refers to it is new, and nothing else.
    let moved = with(&base, "{kind: Cluster, name: a, endpoints: [10.0.0.7:80]}");
    let two = next(&moved, &again);
    assert!(!same(&cluster(&one, "a"), &cluster(&two, "a")));
    assert!(same(&cluster(&one, "b"), &cluster(&two, "b")));
    assert!(!same(&host(&one, "shop"), &host(&two, "shop")));
    assert!(same(&host(&one, "blog"), &host(&two, "blog")));
    assert!(!same(&listener(&one, "raw"), &listener(&two, "raw")));
    assert!(same(&listener(&one, "raw2"), &listener(&two, "raw2")));
    assert!(same(&one.config.defaults, &two.config.defaults));
    let shop = host(&two, "shop");
    let targets = &shop.routes()[0].1.action.to().unwrap().targets;
    assert!(
        same(&targets[0].cluster, &cluster(&two, "a")),
        "routes use the new cluster"
    );
    // The same value written again is no change.
    let rewritten = with(
        &moved,
        "{kind: Cluster, name: a, endpoints: ['10.0.0.7:80']}",
    );
    assert!(same(
        &cluster(&two, "a"),
        &cluster(&next(&rewritten, &two), "a")
    ));
}

#[test]
fn a_virtual_host_that_comes_goes_or_moves_is_swapped_in_the_router() {
    let one = compiled(&set(BASE));
    let blog = "{kind: VirtualHost, name: blog, domains: [blog.test], routes: [{to: a}]}";
    let two = next(&with(&set(BASE), blog), &one);
    assert_eq!(routed(&two, "blog.test", "/").as_deref(), Some("a"));
    assert_eq!(
        routed(&one, "blog.test", "/"),
        None,
        "what ran before is untouched"
    );
    // Domains swap in one step.
    let swapped = with(
        &set(BASE),
        "{kind: VirtualHost, name: blog, domains: [shop.test], routes: [{to: a}]}
---
{kind: VirtualHost, name: shop, domains: [blog.test], routes: [{to: b}]}",
    );
    let three = next(&swapped, &two);
    assert!(three.refused.is_empty());
    assert_eq!(routed(&three, "shop.test", "/x").as_deref(), Some("a"));
    assert_eq!(routed(&three, "blog.test", "/x").as_deref(), Some("b"));
    let four = next(&without(&swapped, Kind::VirtualHost, "blog"), &three);
    assert_eq!(routed(&four, "shop.test", "/x"), None);
    // Attached to another listener, it leaves this one.
    let away = with(
        &swapped,
        "{kind: Listener, name: zweb, bind: ':99', protocol: http}
---
{kind: VirtualHost, name: shop, listeners: [zweb], domains: [blog.test], routes: [{to: b}]}",
    );
    let five = next(&away, &three);
    assert_eq!(routed(&five, "blog.test", "/x"), None);
    let router = five.config.listeners[&named("zweb")].router().unwrap();
    assert_eq!(router.virtual_hosts().len(), 2);
}

#[test]
fn listeners_are_kept_opened_and_closed_by_address_and_protocol() {
    let config = |text: &str| -> Arc<CompiledConfig> { compiled(&set(text)).config };
    let cluster = "---\n{kind: Cluster, name: a, endpoints: [10.0.0.1:80]}\n---\n";
    let old = config(&format!(
        "{cluster}
{{kind: Listener, name: keep, bind: ':1', protocol: http}}
---
{{kind: Listener, name: move, bind: ':2', protocol: http}}
---
{{kind: Listener, name: turn, bind: ':3', protocol: http}}
---
{{kind: Listener, name: gone, bind: ':4', protocol: http}}"
    ));
    let new = config(&format!(
        "{cluster}
{{kind: Listener, name: keep, bind: ':1', protocol: http, labels: {{new: label}}}}
---
{{kind: Listener, name: move, bind: ':20', protocol: http}}
---
{{kind: Listener, name: turn, bind: ':3', protocol: tcp, to: a}}
---
{{kind: Listener, name: come, bind: ':5', protocol: http}}"
    ));
    let found = diff(&old, &new);
    let names = |names: &[&str]| names.iter().map(|name| named(name)).collect::<Vec<_>>();
    assert_eq!(found.keep, names(&["keep"]));
    assert_eq!(found.open, names(&["come", "move", "turn"]));
    assert_eq!(found.close, names(&["gone", "move", "turn"]));
    assert_eq!(diff(&CompiledConfig::default(), &new).open.len(), 4);
    assert_eq!(diff(&new, &new).keep.len(), 4);
}

/// `count` virtual hosts of ten routes each, with a cluster each.
fn large(count: usize) -> ConfigSet {
    let mut text = "{kind: Listener, name: web, bind: ':80', protocol: http}\n".to_owned();
    for index in 0..count {
        let routes: String = (0..10)
            .map(|r| format!("{{match: {{path_prefix: /r{r}}}, to: c{index}}}, "))
            .collect();
        text += &format!(
            "---\n{{kind: Cluster, name: c{index}, endpoints: [10.0.0.1:80]}}\n---\n\
             {{kind: VirtualHost, name: h{index}, domains: [h{index}.test], routes: [{routes}]}}\n"
        );
    }
    set(&text)
}

#[test]
fn a_change_leaves_all_else_as_it_was() {
    let base = large(2000);
    let first = compiled(&base);
    let changed = with(&base, "{kind: Cluster, name: c7, endpoints: [10.0.0.9:80]}");
    let second = next(&changed, &first);
    let clusters = second.config.clusters.iter();
    let anew: Vec<_> = clusters
        .filter(|(name, cluster)| !same(*cluster, &first.config.clusters[*name]))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(anew, [&named("c7")]);
    let hosts = |compiled: &Compiled| {
        let router = compiled.config.listeners[&named("web")].router().cloned();
        let hosts = router.expect("an http listener");
        let hosts = hosts.virtual_hosts().into_iter().cloned();
        hosts.collect::<Vec<_>>()
    };
    let (before, after) = (hosts(&first), hosts(&second));
    let anew = before.iter().zip(&after).filter(|(a, b)| !same(a, b));
    let anew: Vec<_> = anew.map(|(_, host)| host.name()).collect();
    assert_eq!(anew, [&named("h7")]);
    assert!(check(&base).unwrap().next(&changed).is_ok());
}

/// A change of some config, by small numbers.
type Step = (u8, u8, u8);

fn stepped(set: &mut ConfigSet, (what, which, how): Step) {
    let name = which % 3;
    let target = how % 4;
    let text = match what % 6 {
        0 => format!("{{kind: Cluster, name: c{name}, endpoints: [10.0.0.{how}:80]}}"),
        1 => format!(
            "{{kind: VirtualHost, name: h{name}, domains: [d{target}], routes: [{{to: c{name}}}]}}"
        ),
        2 => format!(
            "{{kind: VirtualHost, name: h{name}, domains: [d{name}, e{target}], listeners: [l{target}], routes: [{{to: c{target}}}]}}"
        ),
        3 => format!(
            "{{kind: Listener, name: l{name}, bind: ':{}', protocol: http}}",
            1 + target
        ),
        4 => format!(
            "{{kind: Listener, name: l{name}, bind: ':{}', protocol: tcp, to: c{target}}}",
            1 + target
        ),
        _ => {
            let kind = [Kind::Cluster, Kind::VirtualHost, Kind::Listener][usize::from(target) % 3];
            let letter = ['c', 'h', 'l'][usize::from(target) % 3];
            set.remove(&proxy_config::ResourceId {
                kind,
                name: named(&format!("{letter}{name}")),
            });
            return;
        }
    };
    *set = with(set, &text);
}

/// What a config does, without regard to what it shares.
fn behaviour(compiled: &Compiled) -> String {
    let mut out = String::new();
    for (name, listener) in &compiled.config.listeners {
        out += &format!("{name} {} ", listener.bind);
        match &listener.protocol {
            Protocol::Tcp(tcp) => out += &format!("tcp {:?}", tcp.to),
            Protocol::Udp(udp) => out += &format!("udp {:?}", udp.to),
            Protocol::TlsPassthrough(tls) => out += &format!("tls {:?}", tls.routes),
            Protocol::Http(http) => {
                for domain in ["d0", "d1", "d2", "d3", "e0", "e1", "e2", "e3"] {
                    let host = http.router.virtual_host(domain);
                    out += &format!(
                        "{domain} {:?}",
                        host.map(|host| (host.name(), &host.routes()[0].1))
                    );
                }
            }
        }
    }
    out + &format!("{:?}", compiled.config.clusters)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens to a config: what is in force is consistent, what is accepted step by step
    /// is what is accepted at once, and an incremental result does what a full one does.
    #[test]
    fn step_by_step_is_as_all_at_once(
        steps in prop::collection::vec(prop::collection::vec(any::<Step>(), 1..4), 1..10),
    ) {
        let mut set = ConfigSet::default();
        let mut state = compiled(&set);
        let mut checked = check(&set).unwrap();
        for step in steps {
            step.into_iter().for_each(|change| stepped(&mut set, change));
            state = next(&set, &state);
            let admitted = check(state.in_force());
            prop_assert!(admitted.is_ok(), "in force but inconsistent: {:?}", admitted.err());
            let fresh = compiled(state.in_force());
            prop_assert!(fresh.refused.is_empty());
            prop_assert_eq!(behaviour(&state), behaviour(&fresh));
            let at_once = check(&set);
            let by_step = checked.next(&set);
            prop_assert_eq!(at_once.is_ok(), by_step.is_ok());
            if let Ok(next) = by_step {
                checked = next;
                prop_assert!(state.refused.is_empty(), "accepted but refused: {:?}", state.refused);
            } else {
                prop_assert!(!state.refused.is_empty());
            }
        }
    }
}
