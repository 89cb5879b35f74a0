//! The bytes are etcd's: field numbers that a mistake would change silently.

use bytes::Bytes;
use prost::Message;
use store_api::etcdserverpb::{Compare, RangeRequest, WatchResponse, compare};
use store_api::mvccpb;

#[test]
fn range_request_has_etcds_field_numbers() {
    let request = RangeRequest {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"z"),
        limit: 1,
        revision: 2,
        sort_order: 2,
        sort_target: 3,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 4,
        max_mod_revision: 5,
        min_create_revision: 6,
        max_create_revision: 7,
    };
    let expected = b"\x0a\x01k\x12\x01z\x18\x01\x20\x02\x28\x02\x30\x03\x38\x01\x40\x01\x48\x01\
        \x50\x04\x58\x05\x60\x06\x68\x07";
    assert_eq!(request.encode_to_vec(), expected);
}

#[test]
fn compare_range_end_is_field_64() {
    let compare = Compare {
        result: compare::CompareResult::NotEqual.into(),
        target: compare::CompareTarget::Lease.into(),
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"z"),
        target_union: Some(compare::TargetUnion::Lease(9)),
    };
    // Field 64, length-delimited: (64 << 3) | 2 = 514, as varint 0x82 0x04.
    assert_eq!(
        compare.encode_to_vec(),
        b"\x08\x03\x10\x04\x1a\x01k\x40\x09\x82\x04\x01z"
    );
}

#[test]
fn watch_events_are_field_11_and_rows_have_etcds_numbers() {
    let row = mvccpb::KeyValue {
        key: Bytes::from_static(b"k"),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
        value: Bytes::from_static(b"v"),
        lease: 4,
    };
    let event = mvccpb::Event {
        r#type: 1,
        kv: Some(row),
        prev_kv: None,
    };
    let response = WatchResponse {
        watch_id: 5,
        events: vec![event],
        ..Default::default()
    };
    let expected =
        b"\x10\x05\x5a\x12\x08\x01\x12\x0e\x0a\x01k\x10\x01\x18\x02\x20\x03\x2a\x01v\x30\x04";
    assert_eq!(response.encode_to_vec(), expected);
}
