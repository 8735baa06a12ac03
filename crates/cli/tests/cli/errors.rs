//! Error sentences and exit codes, as aws cli has them.

use crate::fake::{Fake, GROUP, hearth};

async fn failure(fake: &Fake, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fake.run(arguments).await;
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_refuse_with_254() {
    let fake = Fake::start().await;
    let missing = "i-00000000000000000";
    for (arguments, sentence) in [
        (
            &["describe-instances", "--instance-ids", missing][..],
            "An error occurred (InvalidInstanceID.NotFound) when calling the DescribeInstances operation: \
             The instance ID 'i-00000000000000000' does not exist\n",
        ),
        (
            &["run-instances", "--image-id", "ami-1", "--dry-run"],
            "An error occurred (DryRunOperation) when calling the RunInstances operation: \
             Request would have succeeded, but DryRun flag is set.\n",
        ),
        (
            &["delete-security-group", "--group-id", GROUP],
            "An error occurred (DependencyViolation) when calling the DeleteSecurityGroup operation: \
             resource sg-0123456789abcdef0 has a dependent object\n",
        ),
        (
            &["describe-regions"],
            "An error occurred (Unimplemented) when calling the DescribeRegions operation: not here\n",
        ),
    ] {
        assert_eq!(failure(&fake, arguments).await, (Some(254), sentence.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_errors_cannot_drive_the_terminal() {
    let fake = Fake::start().await;
    // As in a name or a tag that somebody else chose.
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}x\r\nhearth: all is well\u{7f}";
    let (code, errors) = failure(&fake, &["delete-security-group", "--group-name", hostile]).await;
    assert_eq!(code, Some(254));
    assert_eq!(errors.lines().count(), 1, "{errors:?}");
    assert!(
        errors.contains("owned") && errors.contains("\\nhearth: all is well"),
        "{errors:?}"
    );
    let is_safe = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(errors.chars().all(is_safe), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn misuse_is_252_and_asks_nothing() {
    let fake = Fake::start().await;
    for (arguments, sentence) in [
        (
            &["no-such-command"][..],
            "hearth: error: Invalid choice: 'no-such-command'",
        ),
        (
            &["describe-vpcz"],
            "Invalid choice: 'describe-vpcz', maybe you meant:\n\n  * describe-vpcs\n",
        ),
        (&["wait", "instance-runnin"], "  * instance-running\n"),
        (&["describe-vpcs", "--vpc-id", "x"], "Unknown options: --vpc-id"),
        (
            &["stop-instances"],
            "hearth: error: the following arguments are required: --instance-ids\n",
        ),
        (
            &["stop-instances", "--cli-input-json", "{}"],
            "Parameter validation failed:\nMissing required parameter in input: \"InstanceIds\"\n",
        ),
        (&["run-instances", "--cli-input-json", "{"], "Invalid JSON"),
        (
            &["run-instances", "--cli-input-json", r#"{"ImageID":""}"#],
            "unknown field `ImageID`",
        ),
        (
            &[
                "run-instances",
                "--associate-public-ip-address",
                "--network-interfaces",
                "DeviceIndex=0",
            ],
            "AssociatePublicIpAddress=",
        ),
        (
            &["describe-instances", "--filters", "Name"],
            "Error parsing parameter '--filters': Expected '='",
        ),
        (
            &["describe-instances", "--filters", "Name=x,Value=y"],
            "unknown field `Value`",
        ),
        (&["describe-instances", "--query", "a[["], "Bad value for --query"),
        (
            &["run-instances", "--image-id", "ami-1", "--count", "many"],
            "say 2, or 1:3",
        ),
        (
            &[
                "run-instances",
                "--image-id",
                "ami-1",
                "--user-data",
                "file:///nonexistent",
            ],
            "Unable to load paramfile",
        ),
        (
            &["authorize-security-group-ingress", "--cidr", "10.0.0.0/8"],
            "--protocol",
        ),
        (
            &["upload-image", "--name", "n", "--disk-image", "/nonexistent"],
            "Unable to read /nonexistent",
        ),
        (
            &["describe-instances", "--endpoint-url", "127.0.0.1:7600"],
            "unix:PATH",
        ),
        (
            &["describe-instances", "--endpoint-url", "http://192.0.2.1:7602"],
            "begin it with https",
        ),
        (
            &["describe-vpcs", "--profile", "x"],
            "--profile says nothing at unix:",
        ),
    ] {
        let (code, errors) = failure(&fake, arguments).await;
        assert_eq!(code, Some(252), "{arguments:?} {errors}");
        assert!(errors.contains(sentence), "{arguments:?}: {errors}");
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_255_with_advice() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("api.sock");
    let endpoint = format!("unix:{}", path.display());
    let sentence = format!(
        "hearthd does not run: nothing listens at {} (`sudo scripts/up` starts hearthd)\n",
        path.display()
    );
    for left_behind in [false, true] {
        if left_behind {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        let output = hearth(&endpoint, home.path(), &["describe-instances"]).await;
        assert_eq!(output.status.code(), Some(255));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), sentence);
    }

    let output = hearth(&endpoint, home.path(), &["wait-until-up", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_no_error() {
    let fake = Fake::start().await;
    assert!(
        fake.ok(&["run-instances", "--help"])
            .await
            .contains("--metadata-options")
    );
    let help = fake.ok(&["stop-instances", "help"]).await;
    assert_eq!(help, fake.ok(&["stop-instances", "--help"]).await);
    assert!(help.contains("[required]"), "{help}");
    fake.ok(&["wait", "instance-running", "help"]).await;
    fake.ok(&["help"]).await;
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            fake.ok(&["completions", shell])
                .await
                .contains("describe-security-groups")
        );
    }
    fake.ok(&["wait-until-up", "--zones", "1"]).await;
}
