use prost::Message as _;

use super::*;
use crate::v1;

/// Each string, list and blob that any request of the API can carry, without a bound.
fn unbounded(
    message: &MessageDescriptor,
    options: &Options,
    seen: &mut Vec<String>,
    found: &mut Vec<String>,
) {
    if seen.iter().any(|name| name == message.full_name()) {
        return;
    }
    seen.push(message.full_name().to_owned());
    for field in message.fields() {
        let has_length = options.max_length(&field).is_some_and(|most| most > 0);
        let needs_length = matches!(field.kind(), Kind::String | Kind::Bytes);
        let has_items = options.max_items(&field).is_some_and(|most| most > 0);
        if (needs_length && !has_length) || ((field.is_list() || field.is_map()) && !has_items) {
            found.push(field.full_name().to_owned());
        }
        // What an entry of a map has, the map bounds.
        if let Kind::Message(inner) = field.kind()
            && !(field.is_map() && has_length)
        {
            unbounded(&inner, options, seen, found);
        }
    }
}

#[test]
fn every_field_of_every_request_has_a_bound() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let options = Options::new(&pool);
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for service in pool
        .services()
        .filter(|service| service.package_name() == PACKAGE)
    {
        for method in service.methods() {
            // What the decoder goes by.
            assert!(
                method.input().name().ends_with("Request"),
                "{}",
                method.input().name()
            );
            unbounded(&method.input(), &options, &mut seen, &mut found);
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
    assert!(found.is_empty(), "without a bound in proto/hearth/v1: {found:#?}");
}

fn refused<M: prost::Message + prost::Name>(message: &M) -> String {
    let error = check(&M::full_name(), &message.encode_to_vec()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameterValue);
    error.message
}

fn describe(filters: usize, values: usize, length: usize) -> v1::DescribeInstancesRequest {
    let filter = v1::Filter {
        name: "tag:Name".into(),
        values: vec!["ä".repeat(length); values],
    };
    v1::DescribeInstancesRequest {
        filters: vec![filter; filters],
        ..Default::default()
    }
}

#[test]
fn what_is_within_its_bounds_passes() {
    let request = describe(50, 10, 255);
    check("hearth.v1.DescribeInstancesRequest", &request.encode_to_vec()).unwrap();
    let request = v1::RunInstancesRequest {
        user_data: "A".repeat(32_768),
        client_token: "x".repeat(64),
        min_count: -1,
        ..Default::default()
    };
    check("hearth.v1.RunInstancesRequest", &request.encode_to_vec()).unwrap();
    // Answers are nobody's to bound.
    check("hearth.v1.DescribeInstancesResponse", &[0xff; 100]).unwrap();
}

#[test]
fn what_is_beyond_is_refused_and_named() {
    assert_eq!(
        refused(&describe(51, 1, 1)),
        "The parameter filters has more than 50 elements."
    );
    assert_eq!(
        refused(&describe(1, 1001, 1)),
        "The parameter filters.values has more than 1000 elements."
    );
    assert_eq!(
        refused(&describe(1, 1, 256)),
        "The parameter filters.values is longer than 255."
    );
    let user_data = v1::RunInstancesRequest {
        user_data: "A".repeat(32_769),
        ..Default::default()
    };
    assert_eq!(
        refused(&user_data),
        "The parameter user_data is longer than 32768."
    );
}

#[test]
fn maps_are_bounded_with_their_names_and_values() {
    let encrypt = |count: usize, name: usize, value: usize| v1::EncryptRequest {
        key_id: "x".into(),
        encryption_context: (0..count)
            .map(|n| (format!("{n:0name$}"), "v".repeat(value)))
            .collect(),
        ..Default::default()
    };
    check(
        "hearth.v1.EncryptRequest",
        &encrypt(64, 2048, 2048).encode_to_vec(),
    )
    .unwrap();
    let refused = |request| refused(&request);
    assert!(refused(encrypt(65, 2, 1)).ends_with("has more than 64 elements."));
    assert!(refused(encrypt(1, 2049, 1)).ends_with("encryption_context.key is longer than 2048."));
    assert!(refused(encrypt(1, 1, 2049)).ends_with("encryption_context.value is longer than 2048."));
}

#[test]
fn messages_that_would_be_merged_are_refused() {
    // A list in a message that is there once: 200 in the first, 200 in the second, 400 when merged.
    let part = |count| v1::UploadImageRequest {
        part: Some(v1::upload_image_request::Part::Parameters(
            v1::upload_image_request::Parameters {
                tag_specifications: vec![v1::TagSpecification::default(); count],
                ..Default::default()
            },
        )),
    };
    let mut twice = part(100).encode_to_vec();
    twice.extend(part(100).encode_to_vec());
    let error = check("hearth.v1.UploadImageRequest", &twice).unwrap_err();
    assert_eq!(
        error.message,
        "The parameter parameters has more than 1 elements."
    );
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        &b"\xff"[..],
        // A length beyond the end.
        b"\x0a\x7f",
        // A group, behind which anything could hide.
        b"\x1b\x1c",
        b"\x09\x00",
    ] {
        let error = check("hearth.v1.DescribeVpcsRequest", bytes).unwrap_err();
        assert_eq!(error.message, "The request is no hearth.v1.DescribeVpcsRequest.");
    }
}
