//! Rewrites by expression, template and header, as config writes them and `explain` tells them.

use proxy_config::{Ask, EndpointHealth, explain, parse_documents};

use crate::{BASE, compiled, set, texts, with};

fn host(routes: &str) -> String {
    format!("{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{routes}]}}")
}

#[test]
fn faults_of_a_rewrite_are_told_at_their_place() {
    let template = "match: {path_template: '/u/{id}/{*rest}'}, to: a";
    for (route, part) in [
        (
            "to: a, rewrite: {path: /a, path_regex: {pattern: a, substitution: b}}".to_owned(),
            "rewrite: both `path` and `path_regex`; give one of them",
        ),
        (
            "to: a, rewrite: {path: /a, path_prefix: /b, path_template: /c}".to_owned(),
            "rewrite: `path` and `path_prefix` and `path_template`; give one of them",
        ),
        (
            "to: a, rewrite: {path_regex: {pattern: '(', substitution: b}}".to_owned(),
            "rewrite.path_regex.pattern: \"(\" is not a regular expression: unclosed group",
        ),
        (
            "to: a, rewrite: {path_regex: {pattern: a, substitution: '\\1'}}".to_owned(),
            "rewrite.path_regex.substitution: there is no group 1 in the expression; it has 0",
        ),
        (
            "to: a, rewrite: {path_regex: {pattern: a}}".to_owned(),
            "rewrite.path_regex: `substitution` is missing",
        ),
        (
            "to: a, rewrite: {path_template: '/{id}'}".to_owned(),
            "rewrite.path_template: the route matches no template",
        ),
        (
            format!("{template}, rewrite: {{path_template: '/{{idd}}'}}"),
            "rewrite.path_template: the route's template has no `idd`; did you mean `id`?",
        ),
        (
            "to: a, rewrite: {host: a, host_from_header: b}".to_owned(),
            "rewrite: both `host` and `host_from_header`; give one of them",
        ),
        (
            "redirect: {path_regex: {pattern: a, substitution: '\\2'}}".to_owned(),
            "redirect.path_regex.substitution: there is no group 2",
        ),
    ] {
        let faults = texts(&parse_documents("in", &host(&format!("{{{route}}}"))).unwrap_err());
        let told = |fault: &String| fault.contains(&format!("routes[0].{part}"));
        assert!(faults.iter().any(told), "{faults:#?}\nshould have {part}");
    }
}

#[test]
fn what_a_rewrite_makes_is_explained() {
    let routes = r"
      {match: {path_prefix: /s}, to: a, rewrite: {path_regex: {pattern: '^/s/([^/]+)(.*)$', substitution: '\2/i/\1'}}},
      {match: {path_template: '/u/{id}/{*rest}'}, to: a, rewrite: {path_template: '/{rest}/of/{id}', host_from_header: x-host}},
      {match: {path_prefix: /bad}, to: a, rewrite: {path_regex: {pattern: '^/bad', substitution: bad}}},
      {match: {path_prefix: /old}, redirect: {path_regex: {pattern: '/old/(.*)', substitution: '/new/\1'}}}";
    let config = compiled(&with(&set(BASE), &host(routes))).config;
    for (path, outcome) in [
        (
            "/s/x/y?q",
            "routes[0] takes it, to a, as /y/i/x for host shop.test",
        ),
        (
            "/u/7/a/b",
            "routes[1] takes it, to a, as /a/b/of/7 for host in.test:81",
        ),
        (
            "/bad/x",
            "routes[2] takes it, but answers 500: what comes out is no path",
        ),
        (
            "/old/x?q",
            "routes[3] takes it, redirect 301 to http://shop.test/new/x?q",
        ),
    ] {
        let mut ask = Ask::get(&format!("http://shop.test{path}")).unwrap();
        ask.headers = vec![("X-Host".into(), "in.test:81".into())];
        let health = |_: &_, _: &_| EndpointHealth::default();
        assert_eq!(explain(&config, &ask, &health).outcome, outcome);
    }
}
