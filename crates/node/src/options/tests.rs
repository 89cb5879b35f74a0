//! The rules among the settings, each with the text of its refusal.

use super::*;

fn options() -> NodeOptions {
    NodeOptions::new("n1".parse().unwrap())
}

#[test]
fn the_defaults_stand() {
    assert_eq!(options().check(), Ok(()));
}

#[test]
fn plain_text_stays_on_loopback_unless_asked_for() {
    let lan: SocketAddr = "192.0.2.1:2379".parse().unwrap();
    let mut node = NodeOptions {
        client_addr: lan,
        ..options()
    };
    let fault = node.check().unwrap_err().to_string();
    for part in [
        "--client-addr 192.0.2.1:2379",
        "--client-cert-file",
        "--insecure",
    ] {
        assert!(fault.contains(part), "{fault}");
    }
    node.insecure = true;
    assert_eq!(node.check(), Ok(()));
    node.insecure = false;
    node.client_tls.cert = Some("a.pem".into());
    node.client_tls.key = Some("a.key".into());
    assert_eq!(node.check(), Ok(()), "TLS is no plain text");
}

#[test]
fn half_of_tls_is_none() {
    let check = |cert: bool, key: bool, ca: bool| {
        let file = |given: bool| given.then(|| "x.pem".into());
        let client_tls = TlsFiles {
            cert: file(cert),
            key: file(key),
            trusted_ca: file(ca),
        };
        let node = NodeOptions {
            client_tls,
            ..options()
        };
        node.check().err().map(|fault| fault.to_string())
    };
    let needs = |given, missing| {
        Some(format!(
            "--client-{given}-file needs --client-{missing}-file, too; give both, or none"
        ))
    };
    assert_eq!(check(true, false, false), needs("cert", "key"));
    assert_eq!(check(true, false, true), needs("cert", "key"));
    assert_eq!(check(false, true, false), needs("key", "cert"));
    assert_eq!(check(false, false, true), needs("trusted-ca", "cert"));
    assert_eq!(check(false, true, true), needs("key", "cert"));
    assert_eq!(check(true, true, false), None);
    assert_eq!(check(true, true, true), None);
}

#[test]
fn the_published_gossip_key_stays_on_loopback() {
    let lan: SocketAddr = "192.0.2.1:7946".parse().unwrap();
    let mut node = NodeOptions {
        gossip_addr: lan,
        ..options()
    };
    assert_eq!(node.check(), Err(OptionsError::NoGossipKey(lan)));
    node.gossip_key_file = Some("gossip.key".into());
    assert_eq!(node.check(), Ok(()));
}

#[test]
fn an_address_that_others_are_told_is_no_wildcard() {
    let any: SocketAddr = "0.0.0.0:2380".parse().unwrap();
    let node = NodeOptions {
        peer_addr: any,
        insecure: true,
        ..options()
    };
    assert_eq!(
        node.check(),
        Err(OptionsError::Wildcard {
            flag: "peer-addr",
            address: any
        })
    );
}

#[test]
fn limits_that_nobody_could_mean_are_refused() {
    let check = |change: fn(&mut Limits)| {
        let mut node = options();
        change(&mut node.limits);
        node.check()
    };
    assert_eq!(
        check(|limits| limits.request_bytes = 9 << 20),
        Err(OptionsError::RequestBytes(9 << 20))
    );
    assert_eq!(
        check(|limits| limits.txn_ops = 0),
        Err(OptionsError::TxnOps(0))
    );
    let quota = check(|limits| limits.quota_bytes = 7).unwrap_err();
    assert_eq!(
        quota.to_string(),
        "--quota 7B: give at least 1MiB, or 0B for the default"
    );
}

#[test]
fn snapshots_are_kept_and_lie_elsewhere() {
    let check = |dir: &str, seconds, keep| {
        let schedule = SnapshotSchedule {
            dir: dir.into(),
            every: Duration::from_secs(seconds),
            keep,
        };
        let node = NodeOptions {
            snapshots: Some(schedule),
            ..options()
        };
        node.check()
    };
    assert_eq!(check("/backup", 3_600, 24), Ok(()));
    assert_eq!(check("/backup", 0, 24), Err(OptionsError::Schedule));
    assert_eq!(check("/backup", 60, 0), Err(OptionsError::Schedule));
    let inside = check("./skein-data/backup", 60, 1).unwrap_err();
    assert!(inside.to_string().contains("another disk"), "{inside}");
}

#[test]
fn several_founders_need_to_find_each_other() {
    let node = NodeOptions {
        bootstrap_expect: 3,
        ..options()
    };
    assert_eq!(node.check(), Err(OptionsError::ExpectWithoutJoin(3)));
    assert_eq!(
        NodeOptions {
            workers: 0,
            ..options()
        }
        .check(),
        Err(OptionsError::Workers(0))
    );
    assert_eq!(
        NodeOptions {
            control_threads: 0,
            ..options()
        }
        .check(),
        Err(OptionsError::ControlThreads(0))
    );
}
