//! The data directory of one node: who may use it, and who the node is.
//!
//! Owns the lock, the identity, the mesh id and the founding promise. Each is written whole and
//! durably. Never touches the log, the snapshots or the rows, which have owners of their own.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bincode::{Decode, Encode};
use model::{MeshId, NodeId};

use crate::codec::{self, CodecError, Format};
use crate::doubt::DOUBT;
use crate::durable;

mod error;
mod fresh;
mod replace;

pub use fresh::{FreshDataDir, FreshError};

pub use error::{OpenError, SaveError};

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const MESH: &str = "mesh";
const PROMISE: &str = "promise";
/// Is there while the directory is being made.
const MARKER: &str = "UNFINISHED";
/// Is there while its content is exchanged.
const REPLACING: &str = "REPLACING";

/// What only ever appears in a directory that has an identity.
const LATER_NAMES: [&str; 7] = [
    MESH,
    PROMISE,
    "log-begun",
    "wal",
    "snapshots",
    "rows",
    DOUBT,
];

const IDENTITY_FORMAT: Format = Format {
    magic: *b"SKid",
    version: 1,
};
const MESH_FORMAT: Format = Format {
    magic: *b"SKms",
    version: 1,
};
const PROMISE_FORMAT: Format = Format {
    magic: *b"SKpr",
    version: 1,
};

/// Who this node is, for as long as the directory lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Random, never zero, never reused: an emptied directory is a new node.
    pub node_id: NodeId,
}

/// The one set of founding members that a node has promised itself to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Id and peer address (`host:port`) of every founding member.
    pub members: Vec<(NodeId, String)>,
}

#[derive(Encode, Decode)]
struct IdentityRecord {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct MeshRecord {
    mesh_id: u64,
}

#[derive(Encode, Decode)]
struct PromiseRecord {
    members: Vec<(u64, String)>,
}

/// An open data directory. Clones share it; it stays locked until the last one is gone, and the
/// log, the rows and the snapshot store each hold one.
#[derive(Debug, Clone)]
pub struct DataDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    identity: Identity,
    facts: Mutex<Facts>,
    /// Holds the lock; the system releases it with the last handle, also when the process dies.
    _lock: File,
}

#[derive(Debug)]
struct Facts {
    mesh: Option<MeshId>,
    promise: Option<Promise>,
}

impl DataDir {
    /// Opens the directory, or creates it (mode 0700) and mints an identity.
    ///
    /// # Errors
    /// [`OpenError`] says which and what to do about it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        create(&path)?;
        let lock = acquire(&path)?;
        if let Some(unfinished) = OpenError::unfinished(&path) {
            return Err(unfinished);
        }
        Self::with_lock(path, lock)
    }

    fn with_lock(path: PathBuf, lock: File) -> Result<Self, OpenError> {
        let identity = match load(&path, IDENTITY, IDENTITY_FORMAT)? {
            Some(IdentityRecord { node_id }) => Identity {
                node_id: NodeId(node_id),
            },
            None => mint(&path)?,
        };
        let mesh = load(&path, MESH, MESH_FORMAT)?.map(|r: MeshRecord| MeshId(r.mesh_id));
        let promise = load(&path, PROMISE, PROMISE_FORMAT)?.map(|r: PromiseRecord| Promise {
            members: r
                .members
                .into_iter()
                .map(|(id, addr)| (NodeId(id), addr))
                .collect(),
        });
        // What was renamed just before a crash of the process may not be durable by name yet.
        durable::sync_folder(&path).map_err(|source| OpenError::Io {
            action: "sync",
            path: path.clone(),
            source,
        })?;
        let facts = Mutex::new(Facts { mesh, promise });
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                identity,
                facts,
                _lock: lock,
            }),
        })
    }

    /// The directory's path, as given.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// The mesh that this node belongs to, once it does.
    pub fn mesh(&self) -> Option<MeshId> {
        self.facts().mesh
    }

    /// Joins this node to a mesh, durably and for good. Saving the same id again does nothing.
    ///
    /// # Errors
    /// [`SaveError::Conflict`] if the node belongs to another mesh, [`SaveError::Io`] otherwise.
    pub fn save_mesh(&self, mesh_id: MeshId) -> Result<(), SaveError> {
        let mut facts = self.facts();
        match facts.mesh {
            Some(held) if held == mesh_id => return Ok(()),
            Some(held) => {
                return Err(SaveError::Conflict {
                    what: "mesh id",
                    held: held.to_string(),
                    wanted: mesh_id.to_string(),
                });
            }
            None => {}
        }
        self.save(
            MESH,
            &codec::encode(MESH_FORMAT, &MeshRecord { mesh_id: mesh_id.0 }),
        )?;
        facts.mesh = Some(mesh_id);
        Ok(())
    }

    /// The founding members that this node promised itself to, once it did.
    pub fn promise(&self) -> Option<Promise> {
        self.facts().promise.clone()
    }

    /// Promises this node to one set of founding members, durably and for good: two such promises
    /// could found two meshes. Order does not matter; saving the same set again does nothing.
    ///
    /// # Errors
    /// [`SaveError::Conflict`] if another set was promised, [`SaveError::Io`] otherwise.
    pub fn save_promise(&self, mut promise: Promise) -> Result<(), SaveError> {
        promise.members.sort();
        let mut facts = self.facts();
        match &facts.promise {
            Some(held) if *held == promise => return Ok(()),
            Some(held) => {
                return Err(SaveError::Conflict {
                    what: "promise",
                    held: held.to_string(),
                    wanted: promise.to_string(),
                });
            }
            None => {}
        }
        let members = promise
            .members
            .iter()
            .map(|(id, addr)| (id.0, addr.clone()))
            .collect();
        self.save(
            PROMISE,
            &codec::encode(PROMISE_FORMAT, &PromiseRecord { members }),
        )?;
        facts.promise = Some(promise);
        Ok(())
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        let path = self.inner.path.join(name);
        durable::replace_file(&path, bytes).map_err(|source| SaveError::Io { path, source })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // The facts change only after their file did, so a panic elsewhere leaves them whole.
        self.inner
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        for (at, (id, addr)) in self.members.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{id} at {addr}")?;
        }
        f.write_str("}")
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(OpenError::NotADirectory {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(classify("open", path, path, error)),
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| durable::sync_folder(durable::parent(path)))
        .map_err(|error| classify("create", path, path, error))
}

/// Takes the lock and leaves this process's id in it; that write also proves the disk writable.
fn acquire(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let fail = |error| classify("write", dir, &path, error);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let named = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = match named {
                true => format!("process {}", holder.trim()),
                false => "another process".to_owned(),
            };
            return Err(OpenError::InUse {
                path: dir.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    lock.set_len(0)
        .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()))
        .map_err(fail)?;
    Ok(lock)
}

fn mint(dir: &Path) -> Result<Identity, OpenError> {
    let path = dir.join(IDENTITY);
    // A new id over an old log would let this node vote twice: once as each.
    if let Some(relic) = LATER_NAMES.iter().find(|name| dir.join(name).exists()) {
        let fault = format!("the file is gone, although `{relic}` is there");
        return Err(OpenError::Damaged { path, fault });
    }
    // Zero reads as "nobody" in too many protocols.
    let node_id = rand::random_range(1..=u64::MAX);
    durable::replace_file(
        &path,
        &codec::encode(IDENTITY_FORMAT, &IdentityRecord { node_id }),
    )
    .map_err(|error| classify("write", dir, &path, error))?;
    Ok(Identity {
        node_id: NodeId(node_id),
    })
}

fn load<T: Decode<()>>(dir: &Path, name: &str, format: Format) -> Result<Option<T>, OpenError> {
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(OpenError::Io {
                action: "read",
                path,
                source,
            });
        }
    };
    match codec::decode(format, &bytes) {
        Ok(value) => Ok(Some(value)),
        Err(CodecError::Newer { found, known }) => Err(OpenError::Newer { path, found, known }),
        Err(error) => Err(OpenError::Damaged {
            path,
            fault: error.to_string(),
        }),
    }
}

fn classify(action: &'static str, dir: &Path, path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::NotADirectory => OpenError::NotADirectory {
            path: dir.to_owned(),
        },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotWritable {
                path: dir.to_owned(),
                source,
            }
        }
        _ => OpenError::Io {
            action,
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
