//! Security groups, key pairs and tags as callers and hosts see them.

use hearth_api::v1;

use crate::support::{Cloud, code};

fn tcp(port: i32, cidr: &str, group: &str) -> v1::IpPermission {
    v1::IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        ip_ranges: if cidr.is_empty() {
            Vec::new()
        } else {
            vec![v1::IpRange {
                cidr_ip: cidr.into(),
                description: String::new(),
            }]
        },
        user_id_group_pairs: if group.is_empty() {
            Vec::new()
        } else {
            vec![v1::UserIdGroupPair {
                group_id: group.into(),
                ..Default::default()
            }]
        },
        ..Default::default()
    }
}

fn rules(group_id: &str, permissions: Vec<v1::IpPermission>) -> v1::AuthorizeSecurityGroupIngressRequest {
    v1::AuthorizeSecurityGroupIngressRequest {
        group_id: group_id.into(),
        ip_permissions: permissions,
        ..Default::default()
    }
}

fn gone(group_id: &str, permissions: Vec<v1::IpPermission>) -> v1::RevokeSecurityGroupIngressRequest {
    v1::RevokeSecurityGroupIngressRequest {
        group_id: group_id.into(),
        ip_permissions: permissions,
        ..Default::default()
    }
}

async fn create(cloud: &Cloud, name: &str) -> Result<String, tonic::Status> {
    let request = v1::CreateSecurityGroupRequest {
        group_name: name.into(),
        description: "made by a test".into(),
        ..Default::default()
    };
    let answer = cloud
        .client
        .clone()
        .security_groups
        .create_security_group(request)
        .await?;
    Ok(answer.into_inner().group_id)
}

#[tokio::test]
async fn rules_reach_the_hosts_that_need_them() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let mut client = cloud.client.clone().security_groups;
    let web = create(&cloud, "web").await.unwrap();
    let db = create(&cloud, "db").await.unwrap();
    client
        .authorize_security_group_ingress(rules(&db, vec![tcp(5432, "", &web)]))
        .await
        .unwrap();
    for group in [&web, &db] {
        let mut request = cloud.request(1);
        request.security_group_ids = vec![group.clone()];
        cloud.run(request).await.unwrap();
    }
    let intents = session.intents_when(|i| i.instances.len() == 2).await;
    let group = |intents: &hearth_api::agent::Intents, id: &str| {
        intents.vpcs[0]
            .security_groups
            .iter()
            .find(|g| g.group_id == id)
            .cloned()
            .unwrap()
    };
    assert_eq!(group(&intents, &web).members, ["172.31.0.4"]);
    let rule = &group(&intents, &db).ingress[0];
    assert_eq!((rule.protocol, rule.from_port, rule.to_port), (6, 5432, 5432));
    assert_eq!(
        rule.peer,
        Some(hearth_api::agent::rule::Peer::GroupId(web.clone()))
    );

    client
        .authorize_security_group_ingress(rules(&web, vec![tcp(22, "10.1.2.3/8", "")]))
        .await
        .unwrap();
    let intents = session.intents_when(|i| !group(i, &web).ingress.is_empty()).await;
    let peer = group(&intents, &web).ingress[0].peer.clone();
    assert_eq!(
        peer,
        Some(hearth_api::agent::rule::Peer::Cidr("10.0.0.0/8".into()))
    );
    client
        .revoke_security_group_ingress(gone(&web, vec![tcp(22, "10.0.0.0/8", "")]))
        .await
        .unwrap();
    session.intents_when(|i| group(i, &web).ingress.is_empty()).await;

    let delete = |id: &str| v1::DeleteSecurityGroupRequest {
        group_id: id.into(),
        ..Default::default()
    };
    assert_eq!(
        code(&client.delete_security_group(delete(&web)).await.unwrap_err()),
        "DependencyViolation"
    );
}

#[tokio::test]
async fn bad_groups_and_rules_get_ec2s_codes() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut client = cloud.client.clone().security_groups;
    for (name, expected) in [
        ("", "MissingParameter"),
        ("default", "InvalidGroup.Reserved"),
        ("sg-mine", "InvalidParameterValue"),
        ("naïve", "InvalidParameterValue"),
    ] {
        assert_eq!(code(&create(&cloud, name).await.unwrap_err()), expected, "{name}");
    }
    let id = create(&cloud, "ssh").await.unwrap();
    assert_eq!(
        code(&create(&cloud, "ssh").await.unwrap_err()),
        "InvalidGroup.Duplicate"
    );
    let ssh = || vec![tcp(22, "0.0.0.0/0", "")];
    let added = client
        .authorize_security_group_ingress(rules(&id, ssh()))
        .await
        .unwrap()
        .into_inner();
    assert!(
        added.security_group_rules[0]
            .security_group_rule_id
            .starts_with("sgr-")
    );
    let again = client
        .authorize_security_group_ingress(rules(&id, ssh()))
        .await
        .unwrap_err();
    assert_eq!(code(&again), "InvalidPermission.Duplicate");
    // One of two is there already: the other is not added.
    let both = vec![tcp(80, "0.0.0.0/0", ""), tcp(22, "0.0.0.0/0", "")];
    assert!(
        client
            .authorize_security_group_ingress(rules(&id, both))
            .await
            .is_err()
    );
    let malformed = rules(&id, vec![tcp(22, "300.0.0.0/99", "")]);
    let malformed = client
        .authorize_security_group_ingress(malformed)
        .await
        .unwrap_err();
    assert_eq!(code(&malformed), "InvalidParameterValue");

    let delete = v1::DeleteSecurityGroupRequest {
        group_name: "default".into(),
        ..Default::default()
    };
    assert_eq!(
        code(&client.delete_security_group(delete).await.unwrap_err()),
        "CannotDelete"
    );
    let describe = v1::DescribeSecurityGroupsRequest {
        group_names: vec!["ssh".into()],
        ..Default::default()
    };
    let told = client
        .describe_security_groups(describe)
        .await
        .unwrap()
        .into_inner()
        .security_groups;
    assert_eq!(told[0].ip_permissions, ssh());
    assert_eq!(told[0].ip_permissions_egress.len(), 1);
    let by_id = v1::RevokeSecurityGroupIngressRequest {
        group_id: id.clone(),
        security_group_rule_ids: vec![added.security_group_rules[0].security_group_rule_id.clone()],
        ..Default::default()
    };
    client.revoke_security_group_ingress(by_id).await.unwrap();
    let delete = v1::DeleteSecurityGroupRequest {
        group_id: id,
        ..Default::default()
    };
    client.delete_security_group(delete).await.unwrap();
}

async fn described(cloud: &Cloud, id: &str) -> v1::SecurityGroup {
    let request = v1::DescribeSecurityGroupsRequest {
        group_ids: vec![id.into()],
        ..Default::default()
    };
    let mut client = cloud.client.clone().security_groups;
    let answer = client.describe_security_groups(request).await.unwrap();
    answer.into_inner().security_groups.remove(0)
}

#[tokio::test]
async fn a_rule_twice_in_one_call_is_refused_and_none_is_added() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut client = cloud.client.clone().security_groups;
    let id = create(&cloud, "ssh").await.unwrap();
    let mut by_name = tcp(22, "", "");
    by_name.user_id_group_pairs = vec![v1::UserIdGroupPair {
        group_name: "ssh".into(),
        ..Default::default()
    }];
    for twice in [
        vec![
            tcp(80, "10.0.0.0/8", ""),
            tcp(22, "0.0.0.0/0", ""),
            tcp(22, "0.0.0.0/0", ""),
        ],
        // The same network in two spellings, and the same group by its id and its name.
        vec![tcp(22, "10.0.0.0/8", ""), tcp(22, "10.1.2.3/8", "")],
        vec![tcp(22, "", &id), by_name],
    ] {
        let request = rules(&id, twice);
        let refused = client
            .authorize_security_group_ingress(request)
            .await
            .unwrap_err();
        assert_eq!(code(&refused), "InvalidParameterValue", "{refused:?}");
        assert!(described(&cloud, &id).await.ip_permissions.is_empty());
    }
}

#[tokio::test]
async fn revoking_tells_what_it_does_not_know_and_takes_the_rest() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut client = cloud.client.clone().security_groups;
    let id = create(&cloud, "ssh").await.unwrap();
    let there = || vec![tcp(22, "0.0.0.0/0", ""), tcp(22, "", &id)];
    let request = rules(&id, there());
    client.authorize_security_group_ingress(request).await.unwrap();
    let mut both = vec![tcp(80, "10.0.0.0/8", "")];
    // What Describe answers, with the account that groups belong to.
    both.extend(described(&cloud, &id).await.ip_permissions);
    assert!(!both[1].user_id_group_pairs[0].user_id.is_empty());
    let answer = client
        .revoke_security_group_ingress(gone(&id, both.clone()))
        .await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.revoked_security_group_rules.len(), 2);
    assert_eq!(answer.unknown_ip_permissions, both[..1]);
    assert!(described(&cloud, &id).await.ip_permissions.is_empty());
    let again = client
        .revoke_security_group_egress(v1::RevokeSecurityGroupEgressRequest {
            group_id: id.clone(),
            ip_permissions: there(),
            ..Default::default()
        })
        .await;
    let again = again.unwrap().into_inner();
    assert!(again.revoked_security_group_rules.is_empty());
    assert_eq!(again.unknown_ip_permissions.len(), 1);
    assert_eq!(described(&cloud, &id).await.ip_permissions_egress.len(), 1);
}

#[tokio::test]
async fn names_of_groups_ignore_case_and_trailing_spaces() {
    let Some(cloud) = Cloud::start().await else { return };
    let id = create(&cloud, "Abc ").await.unwrap();
    assert_eq!(described(&cloud, &id).await.group_name, "Abc");
    for name in ["Abc", "ABC", "abc  ", "Abc "] {
        let refused = create(&cloud, name).await.unwrap_err();
        assert_eq!(code(&refused), "InvalidGroup.Duplicate", "{name}");
    }
    create(&cloud, " Abc").await.unwrap();
    assert_eq!(
        code(&create(&cloud, "Default").await.unwrap_err()),
        "InvalidGroup.Reserved"
    );
    assert_eq!(
        code(&create(&cloud, "SG-x").await.unwrap_err()),
        "InvalidParameterValue"
    );
    assert_eq!(code(&create(&cloud, "  ").await.unwrap_err()), "MissingParameter");
    // Also where a name stands for the group.
    let _host = cloud.connect().await;
    let mut request = cloud.request(1);
    request.security_groups = vec!["aBC".into()];
    request.dry_run = true;
    assert_eq!(code(&cloud.run(request).await.unwrap_err()), "DryRunOperation");
    let mut client = cloud.client.clone().security_groups;
    let describe = v1::DescribeSecurityGroupsRequest {
        group_names: vec!["ABC".into()],
        ..Default::default()
    };
    let told = client
        .describe_security_groups(describe)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.security_groups[0].group_id, id);
    let delete = v1::DeleteSecurityGroupRequest {
        group_name: "abc".into(),
        ..Default::default()
    };
    client.delete_security_group(delete).await.unwrap();
}

#[tokio::test]
async fn keys_and_tags() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let mut keys = cloud.client.clone().key_pairs;
    for key_type in ["ed25519", "rsa"] {
        let request = || v1::CreateKeyPairRequest {
            key_name: key_type.into(),
            key_type: key_type.into(),
            ..Default::default()
        };
        let created = keys.create_key_pair(request()).await.unwrap().into_inner();
        assert!(created.key_material.contains("PRIVATE KEY"));
        let duplicate = keys.create_key_pair(request()).await.unwrap_err();
        assert_eq!(code(&duplicate), "InvalidKeyPair.Duplicate");
        assert!(!cloud.hearthd.log().contains("PRIVATE KEY"));
    }
    let mut request = cloud.request(1);
    request.key_name = "ed25519".into();
    request.metadata_options = Some(v1::InstanceMetadataOptions {
        instance_metadata_tags: "enabled".into(),
        ..Default::default()
    });
    let id = cloud.run(request).await.unwrap().instances[0].instance_id.clone();
    let intents = session.intents_when(|i| !i.instances.is_empty()).await;
    let metadata = intents.instances[0].metadata.clone().unwrap();
    assert!(metadata.public_key.starts_with("ssh-ed25519 ") && metadata.public_key.ends_with(" ed25519"));
    let delete = || v1::DeleteKeyPairRequest {
        key_name: "ed25519".into(),
        ..Default::default()
    };
    keys.delete_key_pair(delete()).await.unwrap();
    keys.delete_key_pair(delete()).await.unwrap();

    let mut tags = cloud.client.clone().tags;
    let tag = v1::Tag {
        key: "Name".into(),
        value: "later".into(),
    };
    let mut create = v1::CreateTagsRequest {
        resources: vec![id.clone(), "vpc-00000000000000000".into()],
        tags: vec![tag.clone()],
        dry_run: false,
    };
    assert_eq!(
        code(&tags.create_tags(create.clone()).await.unwrap_err()),
        "InvalidVpcID.NotFound"
    );
    assert!(cloud.instance(&id).await.tags.is_empty());
    create.resources.pop();
    tags.create_tags(create).await.unwrap();
    let told = session
        .intents_when(|i| !i.instances[0].metadata.as_ref().unwrap().tags.is_empty())
        .await;
    assert_eq!(told.instances[0].metadata.as_ref().unwrap().tags["Name"], "later");
    let delete = v1::DeleteTagsRequest {
        resources: vec![id.clone()],
        tags: vec![v1::TagToDelete {
            key: "Name".into(),
            value: Some("other".into()),
        }],
        dry_run: false,
    };
    tags.delete_tags(delete.clone()).await.unwrap();
    assert_eq!(cloud.instance(&id).await.tags, [tag]);
    let all = v1::DeleteTagsRequest {
        tags: Vec::new(),
        ..delete
    };
    tags.delete_tags(all).await.unwrap();
    assert!(cloud.instance(&id).await.tags.is_empty());
}
