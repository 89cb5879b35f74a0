//! Changes of headers as config writes them.

use proxy_config::parse_documents;

use crate::texts;

/// The faults of a route with these fields.
fn faults(fields: &str) -> Vec<String> {
    let text =
        format!("{{kind: VirtualHost, name: h, domains: [a], routes: [{{to: a, {fields}}}]}}");
    match parse_documents("in.yaml", &text) {
        Ok(_) => Vec::new(),
        Err(faults) => texts(&faults),
    }
}

#[test]
fn headers_that_are_not_the_config_s_to_change_are_refused() {
    for (edits, part) in [
        (
            "request: {set: {Host: a}}",
            "headers.request.set.host: the host is no header to change here; use `rewrite: { host",
        ),
        (
            "request: {remove: [X-Forwarded-For]}",
            "headers.request.remove[0]: `x-forwarded-for` is written by Skein itself; leave it out",
        ),
        (
            "response: {add: {transfer-encoding: chunked}}",
            "headers.response.add.transfer-encoding: `transfer-encoding` is written by Skein itself",
        ),
        (
            "response: {add_if_absent: {Connection: close}}",
            "headers.response.add_if_absent.connection: `connection` is written by Skein",
        ),
        (
            "request: {set: {':path': /a}}",
            "headers.request.set.:path: \":path\" is not a header name",
        ),
        (
            "request: {set: {x: \"a\\r\\nb: c\"}}",
            "headers.request.set.x: \"a\\r\\nb: c\" is not the value of a header",
        ),
        (
            "request: {set: {x: '%PROTOCOLS%'}}",
            "headers.request.set.x: `%PROTOCOLS%` is not a variable; did you mean `PROTOCOL`?",
        ),
        (
            "request: {add: {x: 'at %UPSTREAM_HOST%'}}",
            "headers.request.add.x: `%UPSTREAM_HOST%` is known with the answer only; use it in",
        ),
        (
            "request: {remove: [x, X]}",
            "headers.request.remove[1]: `x` is given twice; keep one of them",
        ),
        (
            "request: {replace: {x: a}}",
            "headers.request.replace: unknown field `replace`",
        ),
    ] {
        let found = faults(&format!("headers: {{{edits}}}"));
        let told = |fault: &String| fault.contains(&format!("routes[0].{part}"));
        assert!(found.iter().any(told), "{found:#?}\nshould have {part}");
    }
    let many: String = (0..65).map(|at| format!("x-{at}, ")).collect();
    let found = faults(&format!("headers: {{response: {{remove: [{many}]}}}}"));
    assert!(
        found[0].contains("there are 65 changes, more than 64"),
        "{found:?}"
    );
    let tcp = "{kind: Listener, name: l, bind: ':1', protocol: tcp, to: a, \
               headers: {request: {remove: [x]}}}";
    let found = texts(&parse_documents("in.yaml", tcp).unwrap_err());
    assert!(
        found[0].contains("headers: a tcp listener sees no headers"),
        "{found:?}"
    );
}

#[test]
fn changes_are_kept_as_they_are_written() {
    let text = "{kind: Cluster, name: a, endpoints: ['10.0.0.1:80'], headers: {request: {}, \
                response: {set: {X-B: '50%%', X-A: '%START_TIME%'}, remove: [Server]}}}";
    let resource = parse_documents("in.yaml", text).unwrap().remove(0);
    let canonical = String::from_utf8(resource.canonical_json()).unwrap();
    assert!(
        canonical.ends_with(
            r#""headers":{"response":{"remove":["server"],"set":{"x-a":"%START_TIME%","x-b":"50%%"}}}}"#
        ),
        "{canonical}"
    );
    let again = parse_documents("in.yaml", &canonical).unwrap().remove(0);
    assert_eq!(again, resource);
}
