//! What a change makes the linker look at.

use super::*;
use crate::set::Change;

/// `count` clusters, and a virtual host for each that routes there.
fn large(count: usize) -> ConfigSet {
    let pair = |kind: &str, name: String, fields: String| {
        let key = format!("/skein/config/default/{kind}/{name}");
        let common = format!(r#""schema":1,"kind":"{kind}","namespace":"default","name":"{name}""#);
        (key, format!("{{{common},{fields}}}"), 1)
    };
    let both = (0..count).flat_map(|at| {
        let endpoints = r#""endpoints":["10.0.0.1:80"]"#.to_owned();
        let routes = format!(r#""domains":["h{at}.test"],"routes":[{{"to":"c{at}"}}]"#);
        [
            pair("Cluster", format!("c{at}"), endpoints),
            pair("VirtualHost", format!("h{at}"), routes),
        ]
    });
    ConfigSet::from_pairs(both)
}

#[test]
fn the_cost_of_a_change_follows_the_change() {
    let base = large(2000);
    let linked = Linked::default().advance(&base);
    let touched = linked.changed_since(&Linked::default());
    assert_eq!((linked.faults(), touched.len()), (Vec::new(), 4000));
    let mut changed = base;
    let key = b"/skein/config/default/Cluster/c7";
    let value = br#"{"schema":1,"kind":"Cluster","namespace":"default","name":"c7","endpoints":["10.0.0.9:80"]}"#;
    changed.apply([Change {
        key,
        value: Some(value),
        mod_revision: 2,
    }]);
    let next = linked.advance(&changed);
    let touched = next.changed_since(&linked);
    let touched: Vec<String> = touched.iter().map(ToString::to_string).collect();
    assert_eq!(touched, ["Cluster/c7", "VirtualHost/h7"]);
    // The same once more.
    assert_eq!(next.advance(&changed).changed_since(&next).len(), 0);
}
