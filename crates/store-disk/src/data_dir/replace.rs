//! Another content for a data directory, all of it or none.
//!
//! Owns the two folders in the directory, the new content's and the old one's, and the marker that
//! says how far the exchange is. Never removes the old content.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{DataDir, FreshError, IDENTITY, LATER_NAMES, MARKER, OpenError, REPLACING, acquire};
use crate::durable;

/// Where the new content is made.
const NEW: &str = "recovered";

/// What is exchanged, beside [`LATER_NAMES`].
const MORE_NAMES: [&str; 2] = [IDENTITY, "rows.opening"];

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The old content goes into its folder.
    Out,
    /// The new content comes out of its folder.
    In,
}

impl DataDir {
    /// Where the content that is to replace this directory's is to be made, by
    /// [`DataDir::begin`]. It is empty.
    ///
    /// # Errors
    /// What the system reports.
    pub fn replacement(&self) -> io::Result<PathBuf> {
        let path = self.path().join(NEW);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(path),
        }
    }

    /// Whether nobody else in this process has the directory, waited for as long as `patience`: what
    /// was opened in it may take a moment to end.
    pub fn is_alone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while std::sync::Arc::strong_count(&self.inner) > 1 {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Puts the content in [`DataDir::replacement`], which is finished, in place of what this
    /// directory holds. The old content goes to the folder `keep` in it. Once begun, nobody can open
    /// the directory until this, or [`DataDir::finish_replacement`], is done.
    ///
    /// # Errors
    /// What the system reports.
    pub fn replace(self, keep: &str) -> Result<(), FreshError> {
        let path = self.path().to_owned();
        let done = mark(&path, Phase::Out, keep).and_then(|()| exchange(&path, Phase::Out, keep));
        done.map_err(|source| FreshError::Io { path, source })
    }

    /// Finishes an exchange that was interrupted; says whether there was one. The directory is not
    /// in use.
    ///
    /// # Errors
    /// As for [`DataDir::replace`].
    pub fn finish_replacement(path: &Path) -> Result<bool, FreshError> {
        if !path.join(REPLACING).exists() {
            return Ok(false);
        }
        let _lock = acquire(path)?;
        let fail = |source| FreshError::Io {
            path: path.to_owned(),
            source,
        };
        let marker = path.join(REPLACING);
        let text = fs::read_to_string(&marker).map_err(fail)?;
        let (phase, keep) = parse(&text).ok_or_else(|| OpenError::Damaged {
            path: marker,
            fault: "it does not say how far the exchange is".to_owned(),
        })?;
        exchange(path, phase, keep).map_err(fail)?;
        Ok(true)
    }
}

fn mark(path: &Path, phase: Phase, keep: &str) -> io::Result<()> {
    let word = match phase {
        Phase::Out => "out",
        Phase::In => "in",
    };
    let text = format!(
        "{word} {keep}\n`skein recover` is exchanging the content of this data directory, or was and \
         never finished: then run it again.\n"
    );
    durable::replace_file(&path.join(REPLACING), text.as_bytes())
}

fn parse(text: &str) -> Option<(Phase, &str)> {
    let (word, keep) = text.lines().next()?.split_once(' ')?;
    let plain = !keep.is_empty() && !keep.contains('/') && keep != "..";
    let phase = match word {
        "out" => Phase::Out,
        "in" => Phase::In,
        _ => return None,
    };
    plain.then_some((phase, keep))
}

/// Goes on from `phase`. Each step may have been done already.
fn exchange(path: &Path, phase: Phase, keep: &str) -> io::Result<()> {
    let (old, new) = (path.join(keep), path.join(NEW));
    if phase == Phase::Out {
        durable::create_folder(&old)?;
        move_content(path, &old)?;
        mark(path, Phase::In, keep)?;
    }
    move_content(&new, path)?;
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => durable::sync_folder(path)?,
    }
    durable::remove_file(&path.join(REPLACING))
}

fn move_content(from: &Path, to: &Path) -> io::Result<()> {
    for name in LATER_NAMES.iter().chain(&MORE_NAMES) {
        match fs::rename(from.join(name), to.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    durable::sync_folder(to)?;
    if from.exists() {
        durable::sync_folder(from)?;
    }
    Ok(())
}

impl OpenError {
    /// The directory is not whole, if a marker says so.
    pub(super) fn unfinished(path: &Path) -> Option<Self> {
        let marked = |marker: &&&str| path.join(marker).exists();
        let marker = [&MARKER, &REPLACING].into_iter().find(marked)?;
        Some(Self::Unfinished {
            path: path.to_owned(),
            marker,
        })
    }
}

#[cfg(test)]
mod tests {
    use model::MeshId;

    use super::*;

    fn prepared(path: &Path) -> DataDir {
        let data = DataDir::open(path).unwrap();
        data.save_mesh(MeshId(1)).unwrap();
        fs::create_dir(path.join("wal")).unwrap();
        fs::write(path.join("wal/old"), "o").unwrap();
        let fresh = DataDir::begin(data.replacement().unwrap()).unwrap();
        fresh.data().save_mesh(MeshId(2)).unwrap();
        fresh.finish().unwrap();
        data
    }

    fn check(path: &Path, old: model::NodeId) {
        let data = DataDir::open(path).unwrap();
        assert_eq!(data.mesh(), Some(MeshId(2)));
        assert_ne!(data.identity().node_id, old);
        assert!(!path.join("wal").exists() && !path.join(NEW).exists());
        assert_eq!(fs::read(path.join("kept/wal/old")).unwrap(), b"o");
        drop(data);
        let kept = DataDir::open(path.join("kept")).unwrap();
        assert_eq!(
            (kept.identity().node_id, kept.mesh()),
            (old, Some(MeshId(1)))
        );
    }

    #[test]
    fn the_new_content_is_in_place_and_the_old_one_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let data = prepared(temp.path());
        let old = data.identity().node_id;
        data.replace("kept").unwrap();
        check(temp.path(), old);
        assert!(!DataDir::finish_replacement(temp.path()).unwrap());
    }

    #[test]
    fn an_exchange_goes_on_from_wherever_it_ended() {
        // Each moved name is a place to end at, in both phases.
        for cut in 0..12 {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path();
            let data = prepared(path);
            let old = data.identity().node_id;
            drop(data);
            mark(path, Phase::Out, "kept").unwrap();
            durable::create_folder(&path.join("kept")).unwrap();
            let names: Vec<_> = LATER_NAMES.iter().chain(&MORE_NAMES).collect();
            let mut left = cut;
            let mut step = |from: &Path, to: &Path| {
                for name in &names {
                    if left > 0 && from.join(name).exists() {
                        fs::rename(from.join(name), to.join(name)).unwrap();
                        left -= 1;
                    }
                }
                left > 0
            };
            if step(path, &path.join("kept")) {
                mark(path, Phase::In, "kept").unwrap();
                step(&path.join(NEW), path);
            }
            let error = DataDir::open(path).unwrap_err();
            assert!(matches!(error, OpenError::Unfinished { .. }), "{error}");
            assert!(DataDir::begin(path).is_err(), "nothing is made here");
            assert!(DataDir::finish_replacement(path).unwrap());
            check(path, old);
        }
    }
}
