//! SIGKILL in the middle of calls, a full disk, a torn write: what was acknowledged is there, and nothing is half-made.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::time::Duration;

use hearth_api::{Client, v1};
use tonic::Status;

use crate::support::{Cloud, Hearthd, Mounted, code, without_public_address};

const ROUNDS: usize = 6;
const CALLERS: usize = 4;
const EACH: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_keeps_what_was_acknowledged_and_nothing_half_made() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    cloud.host.capacity.vcpus = 10_000;
    cloud.host.capacity.memory_mib = 10_000_000;
    cloud.host.capacity.disk_bytes = 1 << 50;
    // Token to reservation, as acknowledged.
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    let mut asked: Vec<String> = Vec::new();
    // A slow machine answers fewer calls before each kill.
    let mut round = 0;
    while round < ROUNDS || acknowledged.len() <= ROUNDS {
        round += 1;
        let mut session = cloud.connect().await;
        session.intents().await;
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let mut client = cloud.client.clone().instances;
                let mut request = cloud.request(EACH);
                request.network_interfaces = without_public_address();
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for call in 0.. {
                        request.client_token = format!("{round}-{caller}-{call}");
                        let token = request.client_token.clone();
                        match client.run_instances(request.clone()).await {
                            Ok(answer) => done.push((token, Some(answer.into_inner().reservation_id))),
                            Err(_) => {
                                done.push((token, None));
                                return done;
                            }
                        }
                    }
                    done
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..250))).await;
        cloud.hearthd.kill();
        for caller in callers {
            for (token, reservation) in caller.await.unwrap() {
                asked.push(token.clone());
                if let Some(reservation) = reservation {
                    acknowledged.insert(token, reservation);
                }
            }
        }
        drop(session);
        cloud.hearthd.spawn();
        cloud.client = cloud.hearthd.client().await;
        check(&cloud, &acknowledged).await;
    }

    // Whoever heard nothing asks again with the same token, and gets one launch.
    let mut session = cloud.connect().await;
    session.intents().await;
    for token in &asked {
        let mut request = cloud.request(EACH);
        request.network_interfaces = without_public_address();
        request.client_token = token.clone();
        let again = cloud.run(request).await.unwrap().reservation_id;
        let before = acknowledged.entry(token.clone()).or_insert_with(|| again.clone());
        assert_eq!(*before, again);
    }
    assert_eq!(cloud.all().await.len(), asked.len() * EACH as usize);
    check(&cloud, &acknowledged).await;
    eprintln!("{} launches, {round} kills", asked.len());
}

async fn check(cloud: &Cloud, acknowledged: &HashMap<String, String>) {
    let reservations = cloud.reservations().await;
    let by_reservation: HashMap<&str, usize> = reservations
        .iter()
        .map(|reservation| (reservation.reservation_id.as_str(), reservation.instances.len()))
        .collect();
    let instances: Vec<&v1::Instance> = reservations.iter().flat_map(|r| &r.instances).collect();
    let mut addresses = HashSet::new();
    for instance in &instances {
        assert_eq!(instance.network_interfaces.len(), 1);
        assert_eq!(instance.block_device_mappings.len(), 1);
        assert!(
            addresses.insert(&instance.private_ip_address),
            "an address went to two"
        );
    }
    for (reservation, count) in &by_reservation {
        assert_eq!(*count, EACH as usize, "{reservation} is half-made");
    }
    for (token, reservation) in acknowledged {
        assert!(
            by_reservation.contains_key(reservation.as_str()),
            "{token} is lost"
        );
    }
    // What the host gets is the same set.
    let intents = cloud.connect().await.intents().await;
    let wanted: HashSet<&String> = intents.instances.iter().map(|i| &i.instance_id).collect();
    assert_eq!(wanted, instances.iter().map(|i| &i.instance_id).collect());
}

#[tokio::test]
async fn sigterm_ends_well_with_a_watcher_and_a_host_connected() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    session.intents().await;
    let request = v1::WatchInstancesRequest::default();
    let mut watcher = cloud
        .client
        .clone()
        .watch
        .watch_instances(request)
        .await
        .unwrap()
        .into_inner();
    let watching = tokio::spawn(async move { while let Ok(Some(_)) = watcher.message().await {} });
    let begin = std::time::Instant::now();
    let ended = tokio::task::spawn_blocking(move || {
        let ended = cloud.hearthd.terminate();
        (ended, cloud)
    });
    session.end().await;
    drop(session);
    let (ended, _cloud) = ended.await.unwrap();
    assert!(ended && begin.elapsed() < Duration::from_secs(20));
    watching.await.unwrap();
}

async fn make_group(client: &Client, name: String, description: String) -> Result<(), Status> {
    let request = v1::CreateSecurityGroupRequest {
        group_name: name,
        description,
        ..v1::CreateSecurityGroupRequest::default()
    };
    let mut client = client.security_groups.clone();
    client.create_security_group(request).await.map(drop)
}

async fn group_names(hearthd: &Hearthd) -> Vec<String> {
    let mut client = hearthd.client().await.security_groups;
    let all = client
        .describe_security_groups(v1::DescribeSecurityGroupsRequest::default())
        .await
        .unwrap();
    let all = all.into_inner().security_groups.into_iter();
    all.map(|group| group.group_name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_refuses_and_goes_on_when_there_is_some() {
    let mut hearthd = Hearthd::start();
    hearthd.kill();
    let Some(_mounted) = Mounted::new(&hearthd.data(), "32m") else {
        return;
    };
    hearthd.spawn();
    let client = hearthd.client().await;
    let make = async |name: String| make_group(&client, name, "x".repeat(200)).await;
    make("before".into()).await.unwrap();
    let ballast = hearthd.data().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    // To the last byte.
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    let (mut acknowledged, mut refused) = (vec!["before".to_owned()], 0);
    // What the database's files have room for is taken first.
    for n in 0..500 {
        match make(format!("full-{n}")).await {
            Ok(_) => acknowledged.push(format!("full-{n}")),
            Err(status) => {
                assert_eq!(code(&status), "Unavailable", "{status:?}");
                assert!(status.message().contains("Repeat it"), "{status:?}");
                refused += 1;
            }
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk is not full");
    std::fs::remove_file(&ballast).unwrap();
    drop(file);
    make("after".into()).await.unwrap();
    acknowledged.push("after".into());
    for is_again in [false, true] {
        if is_again {
            hearthd.kill();
            hearthd.spawn();
        }
        let names = group_names(&hearthd).await;
        let missing: Vec<_> = acknowledged.iter().filter(|name| !names.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    hearthd.kill();
}

/// The power goes while the log's last frames are written: nobody was told of that commit. All before it are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_write_takes_nothing_else_with_it() {
    const MADE: usize = 20;
    let mut hearthd = Hearthd::start();
    let client = hearthd.client().await;
    for n in 0..MADE {
        let name = format!("made-{n:02}");
        make_group(&client, name, "of a torn log".into()).await.unwrap();
    }
    hearthd.kill();
    let log = std::fs::read_dir(hearthd.data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("-wal"))
        .unwrap();
    let database = log.with_file_name(
        log.file_name()
            .unwrap()
            .to_string_lossy()
            .trim_end_matches("-wal"),
    );
    let (log_before, before) = (std::fs::read(&log).unwrap(), std::fs::read(&database).unwrap());
    let torn = |keep: usize, rest: Vec<u8>| [log_before[..keep].to_vec(), rest].concat();
    let whole = log_before.len();
    let tears = [
        torn(whole - 1, vec![]),
        torn(whole - 100, vec![]),
        torn(whole - 4000, vec![]),
        torn(whole - 512, vec![0; 512]),
        torn(whole - 512, (0..512).map(|_| rand::random()).collect()),
        torn(whole - 3584, (0..3584).map(|_| rand::random()).collect()),
    ];
    for (number, tear) in tears.into_iter().enumerate() {
        std::fs::write(&database, &before).unwrap();
        std::fs::write(&log, tear).unwrap();
        let index = log.with_file_name(log.file_name().unwrap().to_string_lossy().replace("-wal", "-shm"));
        let _ = std::fs::remove_file(index);
        hearthd.spawn();
        let mut names = group_names(&hearthd).await;
        names.retain(|name| name.starts_with("made-"));
        names.sort();
        let expected: Vec<_> = (0..MADE - 1).map(|n| format!("made-{n:02}")).collect();
        assert_eq!(names, expected, "tear {number}");
        // It goes on from there.
        let last = format!("made-{:02}", MADE - 1);
        let client = hearthd.client().await;
        make_group(&client, last, "after the tear".into()).await.unwrap();
        hearthd.kill();
    }
}
