//! What a data directory accepts, keeps and refuses.

use super::*;

fn promise(members: &[(u64, &str)]) -> Promise {
    Promise {
        members: members
            .iter()
            .map(|(id, addr)| (NodeId(*id), (*addr).into()))
            .collect(),
    }
}

#[test]
fn identity_mesh_and_promise_survive_a_reopening() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b");
    let dir = DataDir::open(&path).unwrap();
    let identity = dir.identity();
    assert_ne!(identity.node_id, NodeId(0));
    assert_eq!((dir.mesh(), dir.promise()), (None, None));
    dir.save_mesh(MeshId(7)).unwrap();
    dir.save_promise(promise(&[(2, "b:1"), (1, "a:1")]))
        .unwrap();
    drop(dir);

    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.identity(), identity);
    assert_eq!(dir.mesh(), Some(MeshId(7)));
    assert_eq!(dir.promise(), Some(promise(&[(1, "a:1"), (2, "b:1")])));
}

#[test]
fn a_new_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let _dir = DataDir::open(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn two_directories_are_two_nodes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (
        DataDir::open(a.path()).unwrap(),
        DataDir::open(b.path()).unwrap(),
    );
    assert_ne!(a.identity(), b.identity());
}

#[test]
fn mesh_and_promise_are_for_life() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    dir.save_mesh(MeshId(7)).unwrap();
    dir.save_mesh(MeshId(7)).unwrap();
    let error = dir.save_mesh(MeshId(8)).unwrap_err();
    assert!(matches!(error, SaveError::Conflict { .. }), "{error}");
    assert!(
        error.to_string().contains("empty data directory"),
        "{error}"
    );

    dir.save_promise(promise(&[(1, "a:1"), (2, "b:1")]))
        .unwrap();
    dir.save_promise(promise(&[(2, "b:1"), (1, "a:1")]))
        .unwrap();
    let error = dir
        .save_promise(promise(&[(1, "a:1"), (3, "c:1")]))
        .unwrap_err();
    assert!(matches!(error, SaveError::Conflict { .. }), "{error}");
    assert_eq!(dir.mesh(), Some(MeshId(7)));
}

#[test]
fn a_directory_in_use_names_its_holder_and_is_free_afterwards() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let clone = dir.clone();
    drop(dir);
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(clone);
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn a_file_in_the_way_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, b"x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    }
}

#[test]
fn a_read_only_directory_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    // Root may write where the mode forbids it, but not even root creates files in sysfs.
    let path = match rustix::process::geteuid().is_root() {
        true => PathBuf::from("/sys/kernel"),
        false => temp.path().join("data"),
    };
    if path.starts_with(temp.path()) {
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    }
    for path in [path.clone(), path.join("below")] {
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
        assert!(error.to_string().contains("write permission"), "{error}");
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap());
    let path = temp.path().join(IDENTITY);
    let newer = Format {
        version: IDENTITY_FORMAT.version + 1,
        ..IDENTITY_FORMAT
    };
    fs::write(&path, codec::encode(newer, &IdentityRecord { node_id: 1 })).unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("newer skein"), "{error}");

    fs::write(&path, b"garbage").unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("identity"), "{error}");
}

#[test]
fn a_lost_identity_is_never_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    dir.save_mesh(MeshId(1)).unwrap();
    drop(dir);
    fs::remove_file(temp.path().join(IDENTITY)).unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}
