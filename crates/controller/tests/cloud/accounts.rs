//! Accounts are apart from one another in every call.

use hearth_api::v1;

use crate::support::{Cloud, code, script};

/// A key as the script takes it.
fn owner_key(cloud: &Cloud) -> String {
    let profile = std::fs::read_to_string(cloud.hearthd.data().join("credentials")).unwrap();
    let value = |name: &str| {
        let line = profile.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(" = ").to_owned()
    };
    format!(
        "{}:{}",
        value("aws_access_key_id"),
        value("aws_secret_access_key")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_do_not_see_one_another() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: accounts_do_not_see_one_another: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let arguments = ["--ec2-listen", "127.0.0.1:0", "--terminated-visible", "1"];
    let Some(cloud) = Cloud::with(&arguments).await else {
        return;
    };
    let obeying = cloud.connect().await.obey();
    cloud.until_connected().await;
    let mut accounts = cloud.client.clone().accounts;
    let name = "team-a".to_owned();
    let request = v1::CreateAccountRequest {
        account_name: name,
        dry_run: false,
    };
    let made = accounts
        .create_account(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = accounts.create_account(request).await.unwrap_err();
    assert_eq!(code(&again), "EntityAlreadyExists");
    let tenant = made.account.unwrap().account_id;

    let endpoints = std::fs::read_to_string(cloud.hearthd.data().join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).unwrap();
    let port = endpoints["ec2_listen"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let keys = [
        owner_key(&cloud),
        format!("{}:{}", made.access_key_id, made.secret_access_key),
    ];
    let output = tokio::task::spawn_blocking(move || {
        script(python, "accounts.py")
            .arg(port)
            .args(keys)
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{}{}",
        String::from_utf8_lossy(&output.stderr),
        cloud.hearthd.log()
    );
    println!("{said}");

    let listed = accounts.list_accounts(v1::ListAccountsRequest {}).await.unwrap();
    let listed = listed.into_inner().accounts;
    let names: Vec<_> = listed
        .iter()
        .map(|account| account.account_name.as_str())
        .collect();
    assert_eq!(names, ["operator", "team-a"]);
    let close = |id: &str| v1::CloseAccountRequest {
        account_id: id.to_owned(),
        dry_run: false,
    };
    let own = accounts
        .close_account(close(&listed[0].account_id))
        .await
        .unwrap_err();
    assert_eq!(code(&own), "InvalidParameterValue");
    // Its terminated instance is still told of for a second.
    loop {
        match accounts.close_account(close(&tenant)).await {
            Ok(_) => break,
            Err(left) => assert_eq!(code(&left), "DependencyViolation", "{left:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let gone = accounts.close_account(close(&tenant)).await.unwrap_err();
    assert_eq!(code(&gone), "InvalidParameterValue");
    let left = accounts.list_accounts(v1::ListAccountsRequest {}).await.unwrap();
    assert_eq!(left.into_inner().accounts.len(), 1);
    obeying.abort();
}
