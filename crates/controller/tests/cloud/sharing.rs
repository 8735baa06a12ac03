//! Three `hearthd` on one PostgreSQL: the leader is killed or stopped, another takes over, and nothing that was acknowledged
//! is lost. HEARTH_TAKEOVERS says how often.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hearth_api::{Client, ErrorCode, v1};
use tempfile::TempDir;

use crate::crashes::count;
use crate::load::{Ledger, Load};
use crate::postgres::Postgres;
use crate::support::{
    Cloud, Hearthd, Host, SOON, ZONE, code, disk, enroll_at, register, without_public_address,
};

/// A takeover's longest time.
const TAKEOVER: Duration = Duration::from_secs(5);

struct Trio {
    hearthds: Vec<Hearthd>,
    image_id: String,
    host: Host,
    postgres: Postgres,
    _images: TempDir,
}

impl Trio {
    async fn start(test: &str) -> Option<Self> {
        let postgres = Postgres::start(test)?;
        let images = TempDir::with_prefix("images-").unwrap();
        let arguments = |postgres: &Postgres| {
            [
                "--database",
                &postgres.url(),
                "--repository",
                images.path().to_str().unwrap(),
            ]
            .map(str::to_owned)
        };
        let mut hearthds: Vec<Hearthd> = Vec::new();
        for _ in 0..3 {
            let arguments = arguments(&postgres);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let arguments = [&arguments[..], &["--instance-limit", "100000"]].concat();
            // All have the key of the first.
            hearthds.push(match hearthds.first() {
                None => Hearthd::with(&arguments),
                Some(first) => Hearthd::beside(first, &arguments),
            });
        }
        let disk = disk(hearthds[0].dir.path())?;
        // Through one that is not the leader.
        let image_id = register(&hearthds[1].client().await, "tiny", &disk)
            .await
            .unwrap();
        let (key, answer) = enroll_at(&hearthds[0].door(), &hearthds[0].join_token().secret, ZONE)
            .await
            .unwrap();
        let mut host = Host::new(answer.host_id, answer.certificate, key);
        host.capacity.vcpus = 1_000_000;
        host.capacity.memory_mib = 1 << 40;
        host.capacity.disk_bytes = 1 << 60;
        Some(Self {
            hearthds,
            image_id,
            host,
            postgres,
            _images: images,
        })
    }

    fn launch(&self) -> v1::RunInstancesRequest {
        v1::RunInstancesRequest {
            image_id: self.image_id.clone(),
            instance_type: "t2.nano".into(),
            min_count: 1,
            max_count: 1,
            network_interfaces: without_public_address(),
            ..Default::default()
        }
    }

    /// The leader, as the database says.
    fn leader(&self) -> usize {
        let endpoint = self.postgres.sql("SELECT endpoint FROM lease").unwrap();
        let mut all = self.hearthds.iter();
        all.position(|hearthd| hearthd.agent_listen() == endpoint)
            .unwrap()
    }

    /// Waits until another leads, and answers calls. Answers how long it took.
    async fn takeover(&self, old: usize) -> Duration {
        let began = Instant::now();
        let other = &self.hearthds[(old + 1) % 3];
        let client = other.client().await;
        while self.leader() == old {
            assert!(began.elapsed() < SOON, "nobody takes over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        serves(&client).await;
        began.elapsed()
    }
}

/// Makes a change that needs no host.
async fn changes(client: &Client) -> Result<(), tonic::Status> {
    let request = v1::CreateSecurityGroupRequest {
        group_name: format!("group-{}", rand::random::<u64>()),
        description: "after the takeover".into(),
        ..Default::default()
    };
    let mut groups = client.clone().security_groups;
    groups.create_security_group(request).await?;
    Ok(())
}

/// Waits until a change is made. A call whose answer is lost with the leader is repeated, as callers do.
async fn serves(client: &Client) {
    let began = Instant::now();
    while let Err(status) = changes(client).await {
        assert_eq!(code(&status), ErrorCode::Unavailable.to_string(), "{status:?}");
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_reads_forward_the_rest_and_send_agents_to_the_leader() {
    let Some(trio) =
        Trio::start("followers_answer_reads_forward_the_rest_and_send_agents_to_the_leader").await
    else {
        return;
    };
    let leader = trio.leader();
    assert_eq!(leader, 0, "the first");
    let refused = trio.host.try_connect(&trio.hearthds[1]).await;
    let status = refused.err().unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let named = status.metadata().get("hearth-leader").unwrap().to_str().unwrap();
    assert_eq!(named, trio.hearthds[0].agent_listen());
    let mut all: Vec<&str> = trio.hearthds.iter().map(Hearthd::agent_listen).collect();
    all.sort_unstable();
    let began = Instant::now();
    loop {
        let token = trio.hearthds[2].join_token();
        let mut endpoints: Vec<&str> = token.endpoints().collect();
        endpoints.sort_unstable();
        if endpoints == all {
            break;
        }
        // The leader hears of others after a while.
        assert!(began.elapsed() < SOON, "{endpoints:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let host = trio
        .host
        .keep(trio.hearthds.iter().rev().map(Hearthd::door).collect());
    let client = trio.hearthds[1].client().await;
    let began = Instant::now();
    let launched = loop {
        // Until the host is connected.
        match client.clone().instances.run_instances(trio.launch()).await {
            Ok(launched) => break launched.into_inner(),
            Err(status) => assert_eq!(code(&status), "InsufficientInstanceCapacity"),
        }
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let id = launched.instances[0].instance_id.clone();
    // A caller sees its own changes at once, and others soon.
    let there = |client: Client| {
        let id = id.clone();
        async move {
            let request = v1::DescribeInstancesRequest {
                instance_ids: vec![id],
                ..Default::default()
            };
            client.clone().instances.describe_instances(request).await.is_ok()
        }
    };
    assert!(there(client.clone()).await);
    let other = trio.hearthds[2].client().await;
    let began = Instant::now();
    while !there(other.clone()).await {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What only the leader can know is asked there.
    let console = v1::GetConsoleOutputRequest {
        instance_id: id.clone(),
        ..Default::default()
    };
    let mut instances = other.clone().instances;
    assert!(instances.get_console_output(console).await.is_ok());
    // A follower's refusals are the leader's.
    let mut wrong = trio.launch();
    wrong.image_id = "ami-00000000000000000".into();
    let status = client.clone().instances.run_instances(wrong).await.unwrap_err();
    assert_eq!(code(&status), "InvalidAMIID.NotFound");
    // A host's certificate does not open the API.
    let channel = trio.hearthds[0]
        .agent_channel(Some(trio.host.identity()))
        .await
        .unwrap();
    let mut api = v1::hosts_client::HostsClient::new(channel);
    let status = api.list_hosts(v1::ListHostsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
    // Whoever has not the key of their secrets does not join them, and makes none.
    let stranger = TempDir::with_prefix("stranger-").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .args([
            "--database",
            &trio.postgres.url(),
            "--agent-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(stranger.path().join("data"))
        .arg("--socket")
        .arg(stranger.path().join("api.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("seal.key is missing"),
        "{said}"
    );
    assert!(!stranger.path().join("data/seal.key").exists());
    host.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_under_load_lose_nothing() {
    let Some(mut trio) = Trio::start("takeovers_under_load_lose_nothing").await else {
        return;
    };
    let host = trio.host.keep(trio.hearthds.iter().map(Hearthd::door).collect());
    let launch = trio.launch();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let endpoints: Vec<String> = trio.hearthds.iter().map(Hearthd::endpoint).collect();
    let load = Load::start(&ledger, &endpoints, &launch, 20, "load");
    let takeovers = count("HEARTH_TAKEOVERS", 3);
    let mut times: Vec<(bool, Duration)> = Vec::new();
    for n in 0..takeovers {
        let (began, before) = (Instant::now(), load.acknowledged());
        tokio::time::sleep(Duration::from_millis(rand::random_range(200..800))).await;
        while load.acknowledged() < before + 5 {
            assert!(began.elapsed() < SOON, "nothing is acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let old = trio.leader();
        let is_killed = n % 2 == 0;
        if is_killed {
            trio.hearthds[old].kill();
        } else {
            trio.hearthds[old].signal("-STOP");
        }
        times.push((is_killed, trio.takeover(old).await));
        if is_killed {
            trio.hearthds[old].spawn();
        } else {
            trio.hearthds[old].signal("-CONT");
        }
        // Whoever was the leader follows, and its callers are served.
        let client = trio.hearthds[old].client().await;
        serves(&client).await;
        assert_ne!(trio.leader(), old);
    }
    load.stop().await;
    let client = trio.hearthds[trio.leader()].client().await;
    let mut ledger = std::mem::take(&mut *ledger.lock().unwrap());
    ledger.check(&client).await;
    Cloud::connected(&client).await;
    ledger.repeat(&client, &launch).await;
    ledger.check(&client).await;
    host.abort();
    for is_killed in [true, false] {
        let mut of: Vec<Duration> = times
            .iter()
            .filter(|(killed, _)| *killed == is_killed)
            .map(|(_, time)| *time)
            .collect();
        of.sort();
        let (Some(least), Some(most)) = (of.first(), of.last()) else {
            continue;
        };
        eprintln!(
            "{} takeovers after SIG{}: {least:?} to {most:?}, median {:?}",
            of.len(),
            if is_killed { "KILL" } else { "STOP" },
            of[of.len() / 2]
        );
        assert!(*most < TAKEOVER, "{most:?}");
    }
    eprintln!("{} calls acknowledged, {} lost", ledger.acknowledged, ledger.lost);
}
