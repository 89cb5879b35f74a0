//! The mark of a node whose applied state was found to be wrong.
//!
//! Owns one small file that is written durably before anything else is done about it, so that a
//! restart does not forget. Never judges: whoever writes it has found out.

use std::fs;
use std::io;

use crate::data_dir::DataDir;
use crate::durable;

/// The file's name.
pub(crate) const DOUBT: &str = "doubt";

/// What on this disk must not be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The applied rows, and perhaps the snapshots: the state has to come from another member.
    State,
    /// The applied rows alone: there is a good snapshot, and the rows are to be made anew from it.
    Rows,
}

impl Doubt {
    /// What the mark says, if there is one. One that cannot be read says the worst.
    ///
    /// # Errors
    /// What the system reports.
    pub fn load(data: &DataDir) -> io::Result<Option<Self>> {
        match fs::read(data.path().join(DOUBT)) {
            Ok(text) if text.starts_with(b"rows") => Ok(Some(Self::Rows)),
            Ok(_) => Ok(Some(Self::State)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the mark, durably, in place of one that is there.
    ///
    /// # Errors
    /// What the system reports.
    pub fn save(self, data: &DataDir) -> io::Result<()> {
        let text = match self {
            Self::State => {
                "state\nThe applied state of this node differed from the other members'. It gets \
                 theirs when it runs; nothing is to be done by hand.\n"
            }
            Self::Rows => "rows\nThe rows are made anew at the next start.\n",
        };
        durable::replace_file(&data.path().join(DOUBT), text.as_bytes())
    }

    /// Takes the mark away, durably.
    ///
    /// # Errors
    /// What the system reports.
    pub fn clear(data: &DataDir) -> io::Result<()> {
        durable::remove_file(&data.path().join(DOUBT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stays_until_it_is_taken_away() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        assert_eq!(Doubt::load(&data).unwrap(), None);
        for doubt in [Doubt::State, Doubt::Rows] {
            doubt.save(&data).unwrap();
            assert_eq!(Doubt::load(&data).unwrap(), Some(doubt));
        }
        fs::write(temp.path().join(DOUBT), "?").unwrap();
        assert_eq!(Doubt::load(&data).unwrap(), Some(Doubt::State));
        Doubt::clear(&data).unwrap();
        assert_eq!(Doubt::load(&data).unwrap(), None);
    }
}
