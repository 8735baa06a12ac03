//! What answers look like, and what requests say.

use crate::fake::{Fake, GROUP, HOST, INSTANCE};

#[tokio::test(flavor = "multi_thread")]
async fn json_has_ec2s_shape() {
    let fake = Fake::start().await;
    insta::assert_snapshot!("describe_instances", fake.ok(&["describe-instances"]).await);
    insta::assert_snapshot!("describe_images", fake.ok(&["describe-images"]).await);
    insta::assert_snapshot!(
        "describe_security_groups",
        fake.ok(&["describe-security-groups"]).await
    );
    insta::assert_snapshot!(
        "start_instances",
        fake.ok(&["start-instances", "--instance-ids", INSTANCE]).await
    );
    let authorize = [
        "authorize-security-group-ingress",
        "--group-id",
        GROUP,
        "--protocol",
        "tcp",
        "--port",
        "22",
    ];
    let authorize = [&authorize[..], &["--cidr", "0.0.0.0/0"]].concat();
    insta::assert_snapshot!("authorize_security_group_ingress", fake.ok(&authorize).await);
    assert_eq!(
        fake.ok(&["describe-key-pairs"]).await,
        "{\n    \"KeyPairs\": []\n}\n"
    );
    assert_eq!(
        fake.ok(&["reboot-instances", "--instance-ids", INSTANCE]).await,
        ""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_for_people() {
    let fake = Fake::start().await;
    let instances = fake.ok(&["describe-instances", "--output", "table"]).await;
    for word in ["Public IP", "web", INSTANCE, "running", "198.18.0.2", "t2.micro"] {
        assert!(instances.contains(word), "{word} in\n{instances}");
    }
    let groups = fake.ok(&["describe-security-groups", "--output", "table"]).await;
    assert!(
        groups.contains("tcp 22 0.0.0.0/0") && groups.contains("all 0.0.0.0/0"),
        "{groups}"
    );
    assert_eq!(
        fake.ok(&["describe-tags", "--output", "table"]).await,
        "No tags.\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_pick_for_scripts() {
    let fake = Fake::start().await;
    for (query, format, expected) in [
        (
            "Reservations[0].Instances[0].InstanceId",
            "text",
            format!("{INSTANCE}\n"),
        ),
        (
            "Reservations[].Instances[].[InstanceId,State.Name]",
            "text",
            format!("{INSTANCE}\trunning\n"),
        ),
        ("Reservations[7].ReservationId", "text", "None\n".to_owned()),
        (
            "Reservations[].Instances[].State.Code",
            "json",
            "[\n    16\n]\n".to_owned(),
        ),
        (
            "Reservations[0].Instances[0].Tags[?Key=='Name'].Value | [0]",
            "json",
            "\"web\"\n".to_owned(),
        ),
    ] {
        assert_eq!(
            fake.ok(&["describe-instances", "--query", query, "--output", format])
                .await,
            expected,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_instances_says_all_that_it_was_told() {
    let fake = Fake::start().await;
    let data = fake.home.path().join("user-data");
    std::fs::write(&data, "#!/bin/sh\n").unwrap();
    fake.ok(&[
        "run-instances",
        "--image-id",
        "ami-1",
        "--instance-type",
        "t2.micro",
        "--count",
        "1:3",
        "--key-name",
        "k",
        "--security-group-ids",
        GROUP,
        "--user-data",
        &format!("file://{}", data.display()),
        "--client-token",
        "once",
        "--tag-specifications",
        "ResourceType=instance,Tags=[{Key=Name,Value=web}]",
        "--metadata-options",
        "HttpTokens=required,HttpPutResponseHopLimit=2,InstanceMetadataTags=enabled",
        "--maintenance-options",
        "AutoRecovery=disabled",
        "--block-device-mappings",
        r#"[{"DeviceName":"/dev/vda","Ebs":{"VolumeSize":8,"DeleteOnTermination":false}}]"#,
        "--placement",
        "AvailabilityZone=hearth-1a",
        "--no-associate-public-ip-address",
    ])
    .await;
    insta::assert_snapshot!("run_instances_request", told(&fake.asked().join("\n")));
}

/// A request, a line per field, without the fields that it leaves as they are by default.
fn told(request: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for field in request.split(", ") {
        let value = field.split_once(": ").map(|(_, value)| value);
        let defaults = ["\"\"", "None", "0", "[]", "false"];
        let rest = value.and_then(|value| defaults.iter().find_map(|default| value.strip_prefix(default)));
        match (rest, lines.last_mut()) {
            (Some(""), Some(_)) => {}
            (Some(end), Some(last)) if end.starts_with(" }") => last.push_str(end),
            _ => lines.push(field.to_owned()),
        }
    }
    lines.join(",\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_short_and_at_length_mean_the_same() {
    let fake = Fake::start().await;
    let group = ["authorize-security-group-ingress", "--group-name", "web"];
    let run = async |rest: &[&str]| fake.ok(&[&group[..], rest].concat()).await;
    run(&["--protocol", "tcp", "--port", "80-90", "--source-group", GROUP]).await;
    run(&[
        "--ip-permissions",
        &format!("IpProtocol=tcp,FromPort=80,ToPort=90,UserIdGroupPairs=[{{GroupId={GROUP}}}]"),
    ])
    .await;
    run(&["--protocol", "icmp", "--port", "-1", "--cidr", "10.0.0.0/8"]).await;
    run(&[
        "--ip-permissions",
        r#"[{"IpProtocol":"icmp","FromPort":-1,"ToPort":-1,"IpRanges":[{"CidrIp":"10.0.0.0/8"}]}]"#,
    ])
    .await;
    let asked = fake.asked();
    assert_eq!(asked[0], asked[1]);
    assert_eq!(asked[2], asked[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_describe_prints_can_be_revoked() {
    let fake = Fake::start().await;
    let query = "SecurityGroups[0].IpPermissions";
    let told = fake
        .ok(&["describe-security-groups", "--query", query, "--output", "json"])
        .await;
    assert!(
        told.contains("\"Ipv6Ranges\": []") && told.contains("\"PrefixListIds\": []"),
        "{told}"
    );
    let revoke = [
        "revoke-security-group-ingress",
        "--group-id",
        GROUP,
        "--ip-permissions",
    ];
    let answer = fake.ok(&[&revoke[..], &[&told]].concat()).await;
    // The group that answers here knows none of them, and says so in the same words.
    let unknown: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(unknown["UnknownIpPermissions"], told);
    let table = fake
        .ok(&[&revoke[..], &[&told.to_string(), "--output", "table"]].concat())
        .await;
    assert!(table.contains("0.0.0.0/0"), "{table}");

    let empty = r#"[{"IpProtocol":"tcp","FromPort":1,"ToPort":1,"IpRanges":[],"Ipv6Ranges":[],"PrefixListIds":[],
        "UserIdGroupPairs":[{"GroupId":"sg-1","UserId":"","Description":""}]}]"#;
    fake.ok(&[&revoke[..], &[empty]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_made_and_deleted() {
    let fake = Fake::start().await;
    fake.ok(&[
        "create-tags",
        "--resources",
        INSTANCE,
        GROUP,
        "--tags",
        "Key=a,Value=1",
        "Key=b,Value=",
    ])
    .await;
    fake.ok(&[
        "delete-tags",
        "--resources",
        INSTANCE,
        "--tags",
        "Key=a",
        "Key=b,Value=",
    ])
    .await;
    let asked = fake.asked();
    assert!(
        asked[0].contains(r#"tags: [Tag { key: "a", value: "1" }, Tag { key: "b", value: "" }]"#),
        "{asked:?}"
    );
    assert!(
        asked[1].contains(r#"{ key: "a", value: None }"#) && asked[1].contains(r#"value: Some("")"#),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_cannot_drive_the_terminal() {
    let fake = Fake::start().await;
    *fake.script.console.lock().unwrap() = vec![b"\x1b[2Jlogin:\r\n\x1b]0;owned\x07\xff".to_vec()];
    let raw = fake.script.console.lock().unwrap().clone();
    assert_eq!(fake.ok(&["console", INSTANCE]).await, "login:\n");
    *fake.script.console.lock().unwrap() = raw.clone();
    assert_eq!(fake.run(&["console", "--raw", INSTANCE]).await.stdout, raw[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_console_says_each_thing_once() {
    let fake = Fake::start().await;
    *fake.script.console.lock().unwrap() = vec![
        b"one\n".to_vec(),
        b"one\ntwo\n".to_vec(),
        b"two\nthree\n".to_vec(),
    ];
    let output = fake.run(&["console", "--follow", INSTANCE]).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(output.status.code(), Some(254));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_listed_and_forgotten() {
    let fake = Fake::start().await;
    let table = fake.ok(&["list-hosts", "--output", "table"]).await;
    for word in [HOST, "iron", "connected", "1 of 16", "1024 of 32000", "8 of 200"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    let query = ["--query", "Hosts[].[HostId,InstanceIds[0]]", "--output", "text"];
    let hosts = fake.ok(&[&["list-hosts"], &query[..]].concat()).await;
    assert_eq!(hosts, format!("{HOST}\t{INSTANCE}\n"));

    let refused = fake.run(&["forget-host", "--host-id", HOST]).await;
    assert_eq!(refused.status.code(), Some(254));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("(DependencyViolation) when calling the ForgetHost operation"),
        "{said}"
    );
    let forget = ["forget-host", "--host-id", HOST, "--force", "--output", "table"];
    let done = fake.ok(&forget).await;
    assert!(
        done.contains("TerminatedInstanceIds") && done.contains(INSTANCE),
        "{done}"
    );
    let asked = fake.asked();
    assert!(asked[1].contains("force: true"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_drained_and_their_instances_impaired() {
    let fake = Fake::start().await;
    let drain = [
        "drain-host",
        "--host-id",
        HOST,
        "--stop-instances",
        "--output",
        "table",
    ];
    let said = fake.ok(&drain).await;
    assert!(said.contains(INSTANCE) && said.contains(HOST), "{said}");
    assert!(
        fake.asked()[0].contains("stop_instances: true"),
        "{:?}",
        fake.asked()
    );
    let table = fake.ok(&["list-hosts", "--output", "table"]).await;
    assert!(table.contains("connected, draining"), "{table}");
    fake.ok(&["resume-host", "--host-id", HOST]).await;
    let query = [
        "describe-instance-status",
        "--include-all-instances",
        "--query",
        "InstanceStatuses[].[InstanceId,InstanceState.Name,SystemStatus.Status,SystemStatus.Details[0].ImpairedSince]",
        "--output",
        "text",
    ];
    assert_eq!(
        fake.ok(&query).await,
        format!("{INSTANCE}\trunning\timpaired\t2025-11-23T10:00:00+00:00\n")
    );
}

/// No line of `hearth` is about VPCs, nor about most calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_command() {
    let fake = Fake::start().await;
    let arguments = [
        "describe-vpcs",
        "--vpc-ids",
        "vpc-0123456789abcdef0",
        "vpc-0123456789abcdef1",
        "--filters",
        "Name=tag:a,Values=b",
        r#"{"Name":"state","Values":["available","pending"]}"#,
        "--max-results",
        "5",
        "--dry-run",
    ];
    insta::assert_snapshot!("describe_vpcs", fake.ok(&arguments).await);
    insta::assert_snapshot!("describe_vpcs_request", fake.asked().join("\n"));
    assert_eq!(fake.ok(&["describe-vpcs"]).await, "{\n    \"Vpcs\": []\n}\n");
    let table = fake.ok(&["describe-vpcs", "--output", "table"]).await;
    assert_eq!(table, "No vpcs.\n");
    let ids = [
        "describe-vpcs",
        "--vpc-ids",
        "x",
        "--query",
        "Vpcs[].VpcId",
        "--output",
        "text",
    ];
    assert_eq!(fake.ok(&ids).await, "vpc-0123456789abcdef0\n");
    let help = fake.ok(&["describe-vpcs", "--help"]).await;
    for word in [
        "Describes the VPCs",
        "--vpc-ids <VPC_IDS>...",
        "Name=...,Values=...",
        "--max-items",
    ] {
        assert!(help.contains(word), "{word} in\n{help}");
    }
    for (arguments, sentence) in [
        (["describe-vpcs", "--filters", "Nmae=x"], "unknown field `Nmae`"),
        (["describe-vpcs", "--max-results", "many"], "no integer"),
        (["describe-vpcs", "--vpc-id", "x"], "Unknown options: --vpc-id"),
    ] {
        let output = fake.run(&arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(252), "{errors}");
        assert!(errors.contains(sentence), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_request_is_json() {
    let fake = Fake::start().await;
    let skeleton = fake.ok(&["describe-vpcs", "--generate-cli-skeleton"]).await;
    let mut request: serde_json::Value = serde_json::from_str(&skeleton).unwrap();
    assert_eq!(request["Filters"][0]["Values"], serde_json::json!([""]));
    assert!(fake.asked().is_empty());
    request["VpcIds"] = serde_json::json!(["x"]);
    request["DryRun"] = false.into();
    let path = fake.home.path().join("request.json");
    std::fs::write(&path, request.to_string()).unwrap();
    let given = format!("file://{}", path.display());
    // What a flag says comes before what the file says.
    fake.ok(&["describe-vpcs", "--cli-input-json", &given, "--vpc-ids", "y"])
        .await;
    assert!(
        fake.asked()[0].contains(r#"vpc_ids: ["y"]"#),
        "{:?}",
        fake.asked()
    );
}
