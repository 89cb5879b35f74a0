//! Each word is read, written again, and refused with its remedy.

use super::*;

#[test]
fn addresses_to_bind() {
    let bind = |text: &str| text.parse::<Bind>();
    assert_eq!(bind(":80").unwrap(), Bind { ip: None, port: 80 });
    for text in [":80", "10.0.0.1:80", "[::1]:80"] {
        assert_eq!(bind(text).unwrap().to_string(), text);
    }
    for bad in [
        "80",
        ":0",
        "host:80",
        ":",
        "",
        "10.0.0.1",
        ":65536",
        "10.0.0.1:0",
    ] {
        assert!(bind(bad).is_err(), "{bad}");
    }
    let conflicts = |a: &str, b: &str| bind(a).unwrap().conflicts(&bind(b).unwrap());
    assert!(conflicts(":80", "10.0.0.1:80") && conflicts("0.0.0.0:80", "10.0.0.1:80"));
    assert!(conflicts("[::]:80", "10.0.0.1:80") && conflicts("10.0.0.1:80", "10.0.0.1:80"));
    assert!(!conflicts("10.0.0.1:80", "10.0.0.2:80") && !conflicts(":80", ":81"));
}

#[test]
fn a_path_that_no_normalised_request_has_is_refused() {
    for good in ["/", "/api", "/api/", "/a%2Fb", "/caf%C3%A9"] {
        assert!(good.parse::<PathText>().is_ok(), "{good}");
    }
    for (bad, remedy) in [
        ("/a//b", "write \"/a/b\""),
        ("/a/../b", "write \"/b\""),
        ("/%61", "write \"/a\""),
        ("api", "like/this"),
        ("", "like/this"),
        ("/a?b", "like/this"),
        ("/a b", "like/this"),
    ] {
        let fault = bad.parse::<PathText>().unwrap_err().to_string();
        assert!(fault.contains(remedy), "{fault}");
    }
}

#[test]
fn references_resolve_in_the_namespace_of_who_refers() {
    let team: Arc<str> = "team".into();
    let resolve = |text: &str| {
        text.parse::<Reference>()
            .unwrap()
            .resolve(&team)
            .to_string()
    };
    assert_eq!(resolve("web"), "team/web");
    assert_eq!(resolve("default/web"), "web");
    for bad in ["", "/web", "a/b/c", "-a", "a b"] {
        assert!(bad.parse::<Reference>().is_err(), "{bad}");
    }
}

#[test]
fn addresses_methods_and_headers() {
    for bad in [
        "localhost:80",
        "10.0.0.1",
        "10.0.0.1:0",
        "0.0.0.0:80",
        ":80",
    ] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
    assert_eq!(
        "X-Tenant".parse::<HeaderName>().unwrap().as_str(),
        "x-tenant"
    );
    assert!("x tenant".parse::<HeaderName>().is_err() && "".parse::<HeaderName>().is_err());
    assert!("GET".parse::<Method>().is_ok() && "get".parse::<Method>().is_err());
}
