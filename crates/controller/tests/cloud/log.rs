//! What callers send does not forge, flood or colour the log, and is not sent back to them.

use hearth_api::v1;

use crate::support::{Hearthd, code};

const FORGED: &str =
    "x\n2026-11-26T00:00:00.000000Z  INFO hearth_controller: all is well\r\u{1b}[2J\u{9b}31m\u{202e}";

#[tokio::test]
async fn callers_write_no_lines_into_the_log_and_no_megabytes() {
    let hearthd = Hearthd::with(&[]);
    let client = hearthd.client().await;
    let quiet = hearthd.log();
    let long = format!("{FORGED}{}", "y".repeat(900_000));
    let mut sizes = Vec::new();
    for text in [FORGED, &long] {
        let request = v1::CreateSecurityGroupRequest {
            group_name: "web".into(),
            description: text.into(),
            ..Default::default()
        };
        let mut groups = client.clone().security_groups;
        let refused = groups.create_security_group(request).await.unwrap_err();
        assert_eq!(code(&refused), "InvalidParameterValue");
        sizes.push(refused.message().len());
        let request = v1::TerminateInstancesRequest {
            instance_ids: vec![text.into()],
            dry_run: false,
        };
        let mut instances = client.clone().instances;
        let refused = instances.terminate_instances(request).await.unwrap_err();
        // The long one is refused for its length, before it is read.
        let expected = ["InvalidInstanceID.Malformed", "InvalidParameterValue"];
        assert_eq!(code(&refused), expected[usize::from(text.len() > 255)]);
        sizes.push(refused.message().len());
    }
    let log = hearthd.log();
    let new = log.strip_prefix(&quiet).unwrap();
    assert!(
        (2..=4).contains(&new.lines().count()),
        "{}",
        &new[..new.len().min(4000)]
    );
    assert!(new.len() < 12_000, "{} bytes", new.len());
    assert!(
        new.chars()
            .all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'),
        "{new:?}"
    );
    assert!(sizes.iter().all(|size| *size <= 3000), "{sizes:?}");
}
