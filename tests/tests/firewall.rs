//! Real packets through security groups, anti-spoofing and IMDS.
#![allow(clippy::unwrap_used)]

use hearth_api::v1;
use hearth_tests::{Cloud, can_run, tcp_from, tcp_from_group};

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_prove_the_firewall() {
    if !can_run("two_instances_prove_the_firewall") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let web = cloud.make_group("web").await.unwrap();
    let client_group = cloud.make_group("client").await.unwrap();
    // Both answer ssh; only members of `client` may reach port 8000 of members of `web`.
    cloud
        .authorize("web", tcp_from_group(&client_group, 8000))
        .await
        .unwrap();

    let groups = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
    let server_id = cloud
        .launch(|r| r.security_groups = groups(&["ssh", "web"]))
        .await
        .unwrap();
    let client_id = cloud
        .launch(|r| {
            r.security_groups = groups(&["ssh", "client"]);
            r.metadata_options = Some(v1::InstanceMetadataOptions {
                http_tokens: "required".into(),
                ..Default::default()
            });
        })
        .await
        .unwrap();
    let server = cloud.guest(&server_id).await.unwrap();
    let client = cloud.guest(&client_id).await.unwrap();

    // Port 22 is admitted, 8000 is not admitted from the host although something listens there.
    server
        .ssh("for p in 8000 8001; do (setsid nc -ll -p $p -e true >/dev/null 2>&1 &); done")
        .await
        .unwrap();
    assert!(server.opens_from_host(22).await.unwrap(), "ssh is admitted");
    assert!(
        !server.opens_from_host(8000).await.unwrap(),
        "8000 is for members of `client` only"
    );

    // The group rule admits the member, for that port only, and in that direction only.
    assert!(
        client.opens(&server, 8000).await.unwrap(),
        "a member of `client` reaches 8000"
    );
    assert!(!client.opens(&server, 8001).await.unwrap(), "8001 is in no rule");
    let outsider_sees = cloud.describe(&server_id).await.unwrap();
    assert!(outsider_sees.security_groups.iter().any(|g| g.group_id == web));
    client
        .ssh("(setsid nc -ll -p 8000 -e true >/dev/null 2>&1 &)")
        .await
        .unwrap();
    assert!(
        !server.opens(&client, 8000).await.unwrap(),
        "the rule does not work backwards"
    );

    // What is revoked admits no new connection, at once; what is authorised admits, at once.
    cloud
        .revoke("web", tcp_from_group(&client_group, 8000))
        .await
        .unwrap();
    assert!(!client.opens(&server, 8000).await.unwrap(), "revoked");
    cloud.authorize("web", tcp_from("0.0.0.0/0", 8001)).await.unwrap();
    assert!(client.opens(&server, 8001).await.unwrap(), "authorised");
    assert!(
        server.opens_from_host(8001).await.unwrap(),
        "authorised from anywhere"
    );

    // A spoofed source address is dropped: the server admits anyone to 8001, but not from an address that is
    // not the client's own. The true address works before and after.
    let spoof_ip = format!(
        "ip addr add 172.31.15.250/32 dev eth0; ip route add {0}/32 via 172.31.0.1 src 172.31.15.250; \
         nc -w 8 {0} 8001 </dev/null; echo spoofed=$?; \
         ip route del {0}/32; ip addr del 172.31.15.250/32 dev eth0; nc -w 8 {0} 8001 </dev/null; echo true=$?",
        server.private_ip()
    );
    let said = client.ssh(&spoof_ip).await.unwrap();
    assert!(said.contains("spoofed=1") && said.contains("true=0"), "{said}");

    // A spoofed MAC is dropped. The ssh connection itself stands still meanwhile, so the guest does it alone.
    let spoof_mac = format!(
        "old=$(cat /sys/class/net/eth0/address); (setsid sh -c \"ip link set eth0 address 02:00:00:00:00:99; \
         nc -w 8 {} 8001 </dev/null; echo spoofed=\\$? >/tmp/mac; ip link set eth0 address $old; sync; \
         nc -w 8 {0} 8001 </dev/null; echo true=\\$? >>/tmp/mac; echo done >>/tmp/mac\" >/dev/null 2>&1 &)",
        server.private_ip()
    );
    client.ssh(&spoof_mac).await.unwrap();
    let said = client
        .ssh("while ! grep -q done /tmp/mac; do sleep 1; done; cat /tmp/mac")
        .await
        .unwrap();
    assert!(said.contains("spoofed=1") && said.contains("true=0"), "{said}");

    // IMDS: version 1 where tokens are optional, refused where they are required; version 2 always.
    let version_1 = "wget -q -O - http://169.254.169.254/latest/meta-data/instance-id";
    assert_eq!(server.ssh(version_1).await.unwrap(), server.id());
    let refused = client.try_ssh(&format!("{version_1} 2>&1")).await.unwrap();
    assert!(!refused.status.success(), "IMDSv1 is refused");
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("401"),
        "{refused:?}"
    );
    let version_2 = "t=$(printf 'PUT /latest/api/token HTTP/1.0\\r\\nHost: 169.254.169.254\\r\\n\
         X-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n' | nc 169.254.169.254 80 | tail -n1); \
         wget -q -O - --header \"X-aws-ec2-metadata-token: $t\" http://169.254.169.254/latest/meta-data/instance-id";
    assert_eq!(client.ssh(version_2).await.unwrap(), client.id());
}
