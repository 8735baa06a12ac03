use hearth_api::v1::{BlockDeviceMapping, TagSpecification};

use super::*;

fn request() -> RunInstancesRequest {
    RunInstancesRequest {
        image_id: "ami-0123456789abcdef0".into(),
        min_count: 1,
        max_count: 1,
        ..RunInstancesRequest::default()
    }
}

fn refusal(change: impl FnOnce(&mut RunInstancesRequest)) -> String {
    let mut request = request();
    change(&mut request);
    check(request, &MetadataDefaults::default())
        .unwrap_err()
        .code
        .to_string()
}

#[test]
fn a_plain_request_gets_ec2s_defaults() {
    let plan = check(request(), &MetadataDefaults::default()).unwrap();
    assert_eq!(plan.kind.name, "t2.micro");
    assert_eq!(plan.metadata.http_tokens, "optional");
}

#[test]
fn metadata_options_are_the_requests_the_accounts_or_ec2s() {
    let defaults = MetadataDefaults {
        http_tokens: Some("required".into()),
        http_put_response_hop_limit: Some(2),
        ..Default::default()
    };
    let plan = check(request(), &defaults).unwrap();
    let of = |options: &InstanceMetadataOptions| {
        (options.http_tokens.clone(), options.http_put_response_hop_limit)
    };
    assert_eq!(of(&plan.metadata), ("required".into(), 2));
    assert_eq!(plan.metadata.http_endpoint, "enabled");
    // A repetition stays one when the account changes its defaults.
    assert_eq!(
        plan.hash,
        check(request(), &MetadataDefaults::default()).unwrap().hash
    );
    let mut own = request();
    own.metadata_options = Some(InstanceMetadataOptions {
        http_tokens: "optional".into(),
        ..Default::default()
    });
    assert_eq!(
        of(&check(own, &defaults).unwrap().metadata),
        ("optional".into(), 2)
    );
}

#[test]
fn bad_requests_get_ec2s_codes() {
    assert_eq!(refusal(|r| r.min_count = 0), "InvalidParameterValue");
    assert_eq!(refusal(|r| r.max_count = -1), "InvalidParameterValue");
    assert_eq!(refusal(|r| r.min_count = 2), "InvalidParameterValue");
    assert_eq!(refusal(|r| r.image_id.clear()), "MissingParameter");
    assert_eq!(refusal(|r| r.image_id = "ami-?".into()), "InvalidAMIID.Malformed");
    assert_eq!(
        refusal(|r| r.instance_type = "t9.huge".into()),
        "InvalidInstanceType"
    );
    assert_eq!(
        refusal(|r| r.user_data = BASE64_STANDARD.encode([0; 16385])),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| r.user_data = "#!/bin/sh".into()),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| r.client_token = "x".repeat(65)),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| r.private_ip_address = "1.2.3".into()),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| {
            r.maintenance_options = Some(InstanceMaintenanceOptions {
                auto_recovery: "enabled".into(),
            });
        }),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| r.instance_initiated_shutdown_behavior = "hibernate".into()),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| {
            r.tag_specifications = vec![TagSpecification {
                resource_type: "vpc".into(),
                tags: Vec::new(),
            }];
        }),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(|r| {
            r.block_device_mappings = vec![BlockDeviceMapping {
                device_name: "/dev/sdf".into(),
                ebs: None,
                ..Default::default()
            }];
        }),
        "MissingParameter"
    );
}

#[test]
fn the_hash_is_of_what_is_asked_for() {
    let plain = check(request(), &MetadataDefaults::default()).unwrap().hash;
    let hash = |change: fn(&mut RunInstancesRequest)| {
        let mut request = request();
        change(&mut request);
        check(request, &MetadataDefaults::default()).unwrap().hash
    };
    assert_eq!(plain, hash(|r| r.instance_type = "t2.micro".into()));
    assert_eq!(plain, hash(|r| r.client_token = "t".into()));
    assert_ne!(plain, hash(|r| r.instance_type = "t2.small".into()));
    assert_ne!(plain, hash(|r| r.user_data = "AQ==".into()));
    let maintenance = |auto_recovery: &str| {
        Some(InstanceMaintenanceOptions {
            auto_recovery: auto_recovery.into(),
        })
    };
    let recovery = |auto_recovery: &str| {
        let mut request = request();
        request.maintenance_options = maintenance(auto_recovery);
        check(request, &MetadataDefaults::default()).unwrap().hash
    };
    assert_eq!(plain, recovery("default"));
    assert_ne!(plain, recovery("disabled"));
    let groups = |ids: [&str; 2]| {
        let mut request = request();
        request.security_group_ids = ids.map(Into::into).to_vec();
        check(request, &MetadataDefaults::default()).unwrap().hash
    };
    let (a, b) = ("sg-0000000000000000a", "sg-0000000000000000b");
    assert_eq!(groups([a, b]), groups([b, a]));
}
