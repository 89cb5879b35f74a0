//! What images make of registered endpoints, and what a restart begins with.

use store_mvcc::{Command, DeleteOp, Machine, Proposal, PutOp};

use super::*;

fn service(name: &str) -> Origin {
    Origin::Service(ResourceName {
        namespace: "default".into(),
        name: name.into(),
    })
}

fn put(machine: &mut Machine, key: &str, value: &str) {
    let put = PutOp::new(key.to_owned(), value.to_owned());
    let outcome = machine.apply(&Proposal::new(Command::Put(put)));
    outcome.result.unwrap();
}

fn delete(machine: &mut Machine, key: &str) {
    let delete = DeleteOp::new(KeyRange::key(key.to_owned()));
    let outcome = machine.apply(&Proposal::new(Command::Delete(delete)));
    outcome.result.unwrap();
}

/// The services that changed, with the ports of their endpoints.
fn moved(registrations: &Registrations, machine: &Machine) -> Vec<(String, Vec<u16>)> {
    let moved = registrations.follow(&machine.image(), Some(MeshId(7)));
    let ports = |endpoints: &[Endpoint]| endpoints.iter().map(|one| one.address.port()).collect();
    let told = moved.found.iter();
    told.map(|(origin, endpoints)| (origin.to_string(), ports(endpoints)))
        .collect()
}

fn told(service: &str, ports: &[u16]) -> (String, Vec<u16>) {
    (format!("service {service}"), ports.to_vec())
}

#[test]
fn each_image_tells_the_services_that_changed_and_no_others() {
    let registrations = Registrations::nothing();
    let mut machine = Machine::new();
    put(&mut machine, "/skein/endpoints/default/web/1", "10.0.0.1:1");
    put(&mut machine, "/skein/endpoints/default/api/1", "10.0.0.1:9");
    assert_eq!(
        moved(&registrations, &machine),
        [told("api", &[9]), told("web", &[1])]
    );
    assert_eq!(moved(&registrations, &machine), []);
    put(&mut machine, "elsewhere", "10.0.0.1:1");
    assert_eq!(moved(&registrations, &machine), []);
    put(&mut machine, "/skein/endpoints/default/web/2", "10.0.0.1:2");
    delete(&mut machine, "/skein/endpoints/default/web/1");
    put(&mut machine, "/skein/endpoints/team-a/web/1", "10.0.0.1:3");
    assert_eq!(
        moved(&registrations, &machine),
        [told("web", &[2]), told("team-a/web", &[3])]
    );
    delete(&mut machine, "/skein/endpoints/default/web/2");
    assert_eq!(moved(&registrations, &machine), [told("web", &[])]);
}

#[test]
fn the_same_follows_where_the_history_in_between_is_gone() {
    let registrations = Registrations::nothing();
    let mut machine = Machine::new();
    put(&mut machine, "/skein/endpoints/default/web/1", "10.0.0.1:1");
    put(&mut machine, "/skein/endpoints/default/api/1", "10.0.0.1:9");
    moved(&registrations, &machine);
    delete(&mut machine, "/skein/endpoints/default/web/1");
    put(&mut machine, "/skein/endpoints/default/new/1", "10.0.0.1:5");
    put(&mut machine, "other", "1");
    let revision = machine.image().revision();
    let compact = Command::Compact { revision };
    machine.apply(&Proposal::new(compact)).result.unwrap();
    // All services are told, those that are gone too: who is told the same again does nothing.
    let expected = [told("api", &[9]), told("new", &[5]), told("web", &[])];
    assert_eq!(moved(&registrations, &machine), expected);
    // So it is where the store went back, to a snapshot of before.
    let mut older = Machine::new();
    put(&mut older, "/skein/endpoints/default/web/1", "10.0.0.1:1");
    let expected = [told("api", &[]), told("new", &[]), told("web", &[1])];
    assert_eq!(moved(&registrations, &older), expected);
}

#[test]
fn what_cannot_be_read_is_told_when_it_comes_and_when_it_goes() {
    let registrations = Registrations::nothing();
    let mut machine = Machine::new();
    let faults = |machine: &Machine| registrations.follow(&machine.image(), None).faults;
    put(&mut machine, "/skein/endpoints/default/web/1", "10.0.0.1:1");
    assert!(faults(&machine), "the first look tells");
    put(&mut machine, "/skein/endpoints/default/web/2", "10.0.0.1:2");
    assert!(!faults(&machine));
    put(&mut machine, "/skein/endpoints/default/web/2", "garbage");
    assert!(faults(&machine));
    assert_eq!(registrations.count(), (1, 1));
    let fault = registrations.faults(9)[0].to_string();
    assert!(fault.starts_with("endpoint web/2: "), "{fault}");
    let Origin::Service(name) = service("web");
    assert_eq!(registrations.unused(&name), [fault]);
    delete(&mut machine, "/skein/endpoints/default/web/2");
    assert!(faults(&machine));
    assert_eq!(registrations.count(), (1, 0));
}

#[test]
fn a_restart_begins_with_what_was_served() {
    let folder = tempfile::tempdir().unwrap();
    let load = || Registrations::from_disk(folder.path());
    assert!(load().unwrap().found().is_empty());
    let registrations = Registrations::nothing();
    let mut machine = Machine::new();
    let value = r#"{"address": "10.0.0.1:1", "weight": 3, "draining": false}"#;
    put(&mut machine, "/skein/endpoints/default/web/1", value);
    put(&mut machine, "/skein/endpoints/default/web/2", "garbage");
    moved(&registrations, &machine);
    let path = folder.path().join(FILE);
    last_known_good::save(&path, HEADER, &registrations.saved()).unwrap();
    let again = load().unwrap();
    assert_eq!(again.found(), registrations.found());
    assert_eq!(again.found()[0].0, service("web"));
    assert_eq!(again.found()[0].1[0].weight, 3);
    let known = again.known();
    assert_eq!(
        (known.mesh_id, known.revision),
        (Some(MeshId(7)), machine.image().revision())
    );
    drop(known);
    // What went meanwhile is told, though no history tells of it.
    let mut newer = Machine::new();
    put(&mut newer, "/skein/endpoints/default/api/1", "10.0.0.1:9");
    assert_eq!(moved(&again, &newer), [told("api", &[9]), told("web", &[])]);
    std::fs::write(&path, b"skein last-known-endpoints 1 00000000\n{}").unwrap();
    assert!(matches!(load(), Err(LoadError::Damaged { .. })));
}
