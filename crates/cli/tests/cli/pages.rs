//! Answers that come in pages.

use crate::fake::Fake;

const VPCS: [&str; 3] = ["describe-vpcs", "--filters", "Name=pages,Values=x"];

async fn ids(fake: &Fake, more: &[&str]) -> String {
    let query = ["--query", "[Vpcs[].VpcId | join(' ', @), NextToken]"];
    let printed = fake.ok(&[&VPCS[..], &query, more].concat()).await;
    let (ids, token): (String, Option<String>) = serde_json::from_str(&printed).unwrap();
    format!("{ids} {}", token.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_one_answer() {
    let fake = Fake::start().await;
    let all = "vpc-0 vpc-1 vpc-2 vpc-3 vpc-4 vpc-5 vpc-6 ";
    assert_eq!(ids(&fake, &[]).await, all);
    assert_eq!(fake.asked().len(), 4);
    assert_eq!(ids(&fake, &["--page-size", "5"]).await, all);
    assert_eq!(fake.asked().len(), 6);
    assert_eq!(ids(&fake, &["--no-paginate"]).await, "vpc-0 vpc-1 2");
    assert_eq!(
        ids(&fake, &["--max-results", "3", "--next-token", "1"]).await,
        "vpc-1 vpc-2 vpc-3 4"
    );
    assert_eq!(fake.asked().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_told_with_a_token() {
    let fake = Fake::start().await;
    // As botocore writes them, base64 of `{"NextToken": null, "boto_truncate_amount": 1}` and the like.
    let tokens = [
        "eyJOZXh0VG9rZW4iOiBudWxsLCAiYm90b190cnVuY2F0ZV9hbW91bnQiOiAxfQ==",
        "eyJOZXh0VG9rZW4iOiAiMiJ9",
        "eyJOZXh0VG9rZW4iOiAiMiIsICJib3RvX3RydW5jYXRlX2Ftb3VudCI6IDF9",
    ];
    let first = ids(&fake, &["--max-items", "1"]).await;
    assert_eq!(first, format!("vpc-0 {}", tokens[0]));
    let second = ids(&fake, &["--max-items", "1", "--starting-token", tokens[0]]).await;
    assert_eq!(second, format!("vpc-1 {}", tokens[1]));
    let third = ids(&fake, &["--max-items", "1", "--starting-token", tokens[1]]).await;
    assert_eq!(third, format!("vpc-2 {}", tokens[2]));
    let rest = ids(&fake, &["--starting-token", tokens[2]]).await;
    assert_eq!(rest, "vpc-3 vpc-4 vpc-5 vpc-6 ");
    // The service's own.
    assert_eq!(ids(&fake, &["--starting-token", "6"]).await, "vpc-6 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_printed_page_by_page() {
    let fake = Fake::start().await;
    let text = ["--max-items", "5", "--query", "Vpcs[].VpcId", "--output", "text"];
    let printed = fake.ok(&[&VPCS[..], &text].concat()).await;
    assert_eq!(printed, "vpc-0\tvpc-1\nvpc-2\tvpc-3\nvpc-4\nNone\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_page_or_all() {
    let fake = Fake::start().await;
    for (one, all) in [
        ("--no-paginate", "--max-items"),
        ("--max-results=5", "--page-size"),
    ] {
        let output = fake.run(&[&VPCS[..], &[one, all, "2"]].concat()).await;
        assert_eq!(output.status.code(), Some(255));
        let sentence =
            "Error during pagination: Cannot specify --no-paginate along with pagination arguments: ";
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            format!("{sentence}{all}\n")
        );
    }
    assert!(fake.asked().is_empty());
}
