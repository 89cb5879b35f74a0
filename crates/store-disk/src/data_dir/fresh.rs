//! A data directory that is made from a state, all of it or none.
//!
//! Owns the marker that tells a directory that never was finished from one that is whole. Never
//! touches a directory that holds something else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataDir, IDENTITY, LATER_NAMES, LOCK, MARKER, OpenError, acquire, classify, create};
use crate::durable;

/// What the marker says to whoever looks.
const MARKER_TEXT: &str = "\
skein is making this data directory from a snapshot, or was and never finished: then do it again, or
empty the directory.
";

/// Found in the root of file systems of their own; nobody put it there.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a directory is not made into a data directory.
#[derive(Debug, thiserror::Error)]
pub enum FreshError {
    /// It holds something.
    #[error(
        "{path} is not empty (`{found}` is there); choose an empty directory, or move away what it \
         holds"
    )]
    NotEmpty {
        /// The path as given.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// It cannot be used at all.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk refused.
    #[error("cannot write {path} ({source}); see to room and permissions there, and do it again")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A data directory that nobody can open before [`FreshDataDir::finish`].
#[derive(Debug)]
pub struct FreshDataDir {
    data: DataDir,
}

impl DataDir {
    /// Begins a data directory with an identity of its own. The directory must be absent or empty;
    /// what an earlier attempt left in it is removed.
    ///
    /// # Errors
    /// [`FreshError`]; nothing was changed if it is not empty.
    pub fn begin(path: impl AsRef<Path>) -> Result<FreshDataDir, FreshError> {
        let path = path.as_ref().to_owned();
        check_empty(&path)?;
        create(&path)?;
        let lock = acquire(&path)?;
        // Nobody else can have begun meanwhile without the lock.
        check_empty(&path)?;
        let fail = |source| FreshError::Io {
            path: path.clone(),
            source,
        };
        durable::replace_file(&path.join(MARKER), MARKER_TEXT.as_bytes()).map_err(fail)?;
        for name in LATER_NAMES.iter().chain([&IDENTITY]) {
            remove(&path.join(name)).map_err(fail)?;
        }
        let data = Self::with_lock(path, lock)?;
        Ok(FreshDataDir { data })
    }
}

impl FreshDataDir {
    /// The directory, to be filled.
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// From now on it is a data directory like any other.
    ///
    /// # Errors
    /// What the disk reports; it is unfinished then.
    pub fn finish(self) -> Result<(), FreshError> {
        let path = self.data.path();
        durable::sync_folder(path)
            .and_then(|()| durable::remove_file(&path.join(MARKER)))
            .map_err(|source| FreshError::Io {
                path: path.to_owned(),
                source,
            })
    }
}

/// Whether there is nothing but what an earlier attempt left.
fn check_empty(path: &Path) -> Result<(), FreshError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(classify("read", path, path, error).into()),
    };
    let fail = |source| FreshError::Io {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(fail)?.file_name());
    }
    if names.iter().any(|name| name == MARKER) {
        return Ok(());
    }
    let found = names
        .iter()
        .find(|name| *name != LOCK && *name != LOST_AND_FOUND);
    match found {
        None => Ok(()),
        Some(found) => Err(FreshError::NotEmpty {
            path: path.to_owned(),
            found: found.to_string_lossy().into_owned(),
        }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use model::MeshId;

    use super::*;

    #[test]
    fn nobody_opens_it_before_it_is_finished() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let fresh = DataDir::begin(&path).unwrap();
        fresh.data().save_mesh(MeshId(7)).unwrap();
        let id = fresh.data().identity();
        drop(fresh);
        let unfinished = DataDir::open(&path).unwrap_err();
        assert!(
            matches!(unfinished, OpenError::Unfinished { .. }),
            "{unfinished}"
        );

        // Done again: nothing of the first attempt is left.
        let fresh = DataDir::begin(&path).unwrap();
        assert_eq!(fresh.data().mesh(), None);
        assert_ne!(fresh.data().identity(), id);
        fresh.data().save_mesh(MeshId(8)).unwrap();
        fresh.finish().unwrap();
        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.mesh(), Some(MeshId(8)));
    }

    #[test]
    fn what_is_not_empty_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("letter"), "dear").unwrap();
        let error = DataDir::begin(temp.path()).unwrap_err();
        assert!(error.to_string().contains("letter"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

        let used = temp.path().join("used");
        drop(DataDir::open(&used).unwrap());
        let error = DataDir::begin(&used).unwrap_err();
        assert!(error.to_string().contains("identity"), "{error}");
    }

    #[test]
    fn a_file_system_of_its_own_counts_as_empty() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(LOST_AND_FOUND)).unwrap();
        DataDir::begin(temp.path()).unwrap().finish().unwrap();
        DataDir::open(temp.path()).unwrap();
        assert!(temp.path().join(LOST_AND_FOUND).is_dir());
    }

    #[test]
    fn only_one_process_makes_it() {
        let temp = tempfile::tempdir().unwrap();
        let fresh = DataDir::begin(temp.path()).unwrap();
        let error = DataDir::begin(temp.path()).unwrap_err();
        assert!(matches!(error, FreshError::Open(OpenError::InUse { .. })));
        fresh.finish().unwrap();
    }
}
