//! An image as a stream of rows, and back.
//!
//! Owns the order of the stream and the checks of a rebuild. The stream begins with the *base*: the
//! rows older than all kept history that can still be read, in any order; then come the rows of the
//! history, as they were written.

use crc32fast::Hasher;

use crate::edit::Edit;
use crate::{Auth, Image, ImageMeta, Lease, Row, RowsError};

impl Image {
    /// All rows that this image holds, current and past: the base first, then the history in the
    /// order of writing. The order is the same for equal images.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let start = self.meta.history_start();
        let in_base = move |row: &&Row| row.mod_revision < start;
        let changes = || self.history.iter().flat_map(|changes| &changes.rows);
        let current = self.live.values().filter(in_base);
        let replaced = changes()
            .filter_map(|change| change.prev.as_ref())
            .filter(in_base);
        current
            .chain(replaced)
            .chain(changes().map(|change| &change.row))
    }

    /// A checksum of all rows up to `revision`, equal on members with the same history.
    pub fn hash(&self, revision: i64) -> u32 {
        let mut hasher = Hasher::new();
        for row in self.rows().filter(|row| row.mod_revision <= revision) {
            for number in [
                row.create_revision,
                row.mod_revision,
                row.version,
                row.lease,
            ] {
                hasher.update(&number.to_le_bytes());
            }
            for bytes in [&row.key, &row.value] {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        }
        hasher.finalize()
    }

    /// The same rows and leases with other users and roles.
    #[must_use]
    pub fn with_auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// Rebuilds an image from its counters, its [`Image::rows`] and its [`Image::leases`].
    ///
    /// # Errors
    /// The rows are not those of an image with these counters.
    pub fn from_rows<R: Into<Row>>(
        meta: ImageMeta,
        rows: impl IntoIterator<Item = R>,
        leases: impl IntoIterator<Item = Lease>,
    ) -> Result<Self, RowsError> {
        let mut builder = ImageBuilder::new(meta);
        for row in rows {
            builder.push(row)?;
        }
        for lease in leases {
            builder.push_lease(lease)?;
        }
        builder.finish()
    }
}

/// Rebuilds an [`Image`] row by row, for rows that arrive in pieces.
#[derive(Debug)]
pub struct ImageBuilder {
    meta: ImageMeta,
    /// Its revision is the last one that is whole.
    image: Image,
    /// The rows of the revision after it.
    pending: Vec<Row>,
}

impl ImageBuilder {
    /// Begins an image with these counters.
    pub fn new(meta: ImageMeta) -> Self {
        let mut image = Image::default();
        image.meta.compact_revision = meta.compact_revision;
        image.meta.revision = meta.history_start() - 1;
        Self {
            meta,
            image,
            pending: Vec::new(),
        }
    }

    /// Takes the next row of the stream.
    ///
    /// # Errors
    /// The row cannot come here.
    pub fn push(&mut self, row: impl Into<Row>) -> Result<(), RowsError> {
        let row = row.into();
        let misplaced = RowsError::OutOfPlace {
            revision: row.mod_revision,
            sub: row.sub,
        };
        if row.key.is_empty() || row.mod_revision > self.meta.revision {
            return Err(misplaced);
        }
        if row.mod_revision < self.meta.history_start() {
            return if self.push_base(row) {
                Ok(())
            } else {
                Err(misplaced)
            };
        }
        if row.mod_revision > self.image.meta.revision + 1 {
            self.close_revision();
        }
        if row.mod_revision > self.image.meta.revision + 1 {
            return Err(RowsError::Missing {
                revision: self.image.meta.revision + 1,
            });
        }
        let in_place = row.mod_revision == self.image.meta.revision + 1
            && row.sub as usize == self.pending.len();
        if !in_place {
            return Err(misplaced);
        }
        self.pending.push(row);
        Ok(())
    }

    /// Takes a lease; leases come in any order, before, among or after the rows.
    ///
    /// # Errors
    /// There cannot be such a lease.
    pub fn push_lease(&mut self, lease: Lease) -> Result<(), RowsError> {
        let leases = &mut self.image.leases;
        if lease.id == 0 || leases.get(lease.id).is_some() {
            return Err(RowsError::Lease { id: lease.id });
        }
        leases.set(lease);
        Ok(())
    }

    /// Takes the users and roles; without them there are none.
    pub fn set_auth(&mut self, auth: Auth) {
        self.image.auth = auth;
    }

    /// The image.
    ///
    /// # Errors
    /// Rows or leases are missing.
    pub fn finish(mut self) -> Result<Image, RowsError> {
        self.close_revision();
        let whole = self.image.meta.revision == self.meta.revision
            && self.meta.compact_revision <= self.meta.revision;
        if !whole {
            return Err(RowsError::Missing {
                revision: self.image.meta.revision + 1,
            });
        }
        if let Some(id) = self.image.leases.missing() {
            return Err(RowsError::Lease { id });
        }
        self.image.meta = self.meta;
        Ok(self.image)
    }

    fn push_base(&mut self, row: Row) -> bool {
        let history_began = !self.pending.is_empty() || !self.image.history.is_empty();
        if history_began || row.is_tombstone() || self.image.get(&row.key).is_some() {
            return false;
        }
        self.image.resident_bytes += row.resident_bytes();
        self.image.live_bytes += row.resident_bytes();
        if row.lease != 0 {
            self.image.leases.attach(row.lease, &row.key);
        }
        self.image.live.insert(row.key.clone(), row);
        true
    }

    fn close_revision(&mut self) {
        let mut edit = Edit::begin(&mut self.image);
        self.pending.drain(..).for_each(|row| edit.replace(row));
        edit.commit();
    }
}

impl PartialEq for Image {
    /// Whether both hold the same rows, current and past, leases and users, under the same counters.
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta
            && self.resident_bytes == other.resident_bytes
            && self.live_bytes == other.live_bytes
            && self.live == other.live
            && self.graves == other.graves
            && self.history == other.history
            && self.leases == other.leases
            && self.auth == other.auth
    }
}

impl Eq for Image {}
