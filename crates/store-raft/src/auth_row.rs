//! Users and roles among the applied rows on disk.
//!
//! Owns the one row that holds them all: they change seldom, and go out in the same batch as the
//! position that they are of. Never split: what is not changed is not written.

use bytes::Bytes;
use prost::Message;
use store_api::skeinpb as pb;
use store_mvcc::{Auth, Image};

use crate::convert::auth::{auth_from_pb, auth_to_pb};

/// The row's key: after all rows of keys, ahead of all pages of leases.
const KEY: &[u8] = &[0xfe];

/// Whether this is the key of the row.
pub(crate) fn is(key: &[u8]) -> bool {
    key == KEY
}

/// The row, if there ever was a user or a role.
pub(crate) fn tell(image: &Image) -> Option<(Bytes, Bytes)> {
    follow(&Image::default(), image)
}

/// The row, if it changed from one image to a later one.
pub(crate) fn follow(from: &Image, to: &Image) -> Option<(Bytes, Bytes)> {
    let changed = from.auth() != to.auth();
    changed.then(|| {
        let value = auth_to_pb(to.auth()).encode_to_vec();
        (Bytes::from_static(KEY), value.into())
    })
}

/// What the row holds. The error says what is wrong with it.
pub(crate) fn read(value: Bytes) -> Result<Auth, String> {
    let state = pb::AuthState::decode(value).map_err(|error| error.to_string())?;
    auth_from_pb(state).map_err(|error| error.to_string())
}
