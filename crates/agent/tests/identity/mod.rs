//! Who the agent is: enrolment, renewal, and being forgotten, against a control plane that the test plays.

use std::time::Duration;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;

use hearth_api::agent::run_end::Cause;

use crate::common::{Cloud, PATIENCE};

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_ends_and_used_from_then_on() {
    let mut cloud = Cloud::new().await;
    cloud.hosts.lock().unwrap().life = Duration::from_secs(12);
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud
        .until_host(|hosts| hosts.renewals == 2 && hosts.sessions.len() == 3)
        .await;
    let mut seen = cloud.hosts.lock().unwrap().sessions.clone();
    seen.dedup();
    assert_eq!(seen.len(), 3, "a certificate was used again");
    // What is kept is what is used: an agent that starts again begins with the newest.
    cloud.kill_agent();
    cloud.hosts.lock().unwrap().life = Duration::from_secs(3600);
    cloud.start_agent();
    cloud.until_host(|hosts| hosts.sessions.len() == 4).await;
    assert_eq!(cloud.hosts.lock().unwrap().sessions[3], seen[2]);
    assert_eq!(cloud.spawned("i-1").len(), 1, "the guest noticed");
}

/// As `hearth-agent` left it before certificates were renewed: the key beside the certificate, which lasts ten years.
fn made_old(cloud: &Cloud) {
    let pki = cloud.data_dir().join("pki");
    let both = std::fs::read_to_string(pki.join("host.pem")).unwrap();
    let (certificate, key) = both.split_at(both.find("-----BEGIN PRIVATE KEY-----").unwrap());
    std::fs::write(pki.join("host.pem"), certificate).unwrap();
    std::fs::write(pki.join("host.key"), key).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ten_year_certificate_is_renewed_at_the_next_start() {
    let mut cloud = Cloud::new().await;
    cloud.hosts.lock().unwrap().life = YEARS;
    cloud.start_agent();
    // It may be renewed, and begin another session, before anybody looks.
    cloud.until_host(|hosts| !hosts.sessions.is_empty()).await;
    cloud.kill_agent();
    made_old(&cloud);
    let (renewals, sessions) = {
        let mut hosts = cloud.hosts.lock().unwrap();
        hosts.life = Duration::from_secs(90 * 24 * 3600);
        (hosts.renewals, hosts.sessions.len())
    };
    cloud.start_agent();
    cloud
        .until_host(|hosts| hosts.renewals == renewals + 1 && hosts.sessions.len() == sessions + 2)
        .await;
    let pki = cloud.data_dir().join("pki");
    assert!(!pki.join("host.key").exists());
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(pki.join("host.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Not again: the new one lasts.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cloud.hosts.lock().unwrap().renewals, renewals + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_host_ends_its_guests_keeps_their_volumes_says_so_and_does_not_hammer() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    let begin = std::time::Instant::now();
    cloud.hosts.lock().unwrap().forgotten.send_replace(true);
    while !cloud.living("i-1").is_empty() {
        assert!(begin.elapsed() < PATIENCE, "the guest runs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("fenced {:?} after the host was forgotten", begin.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        cloud.hosts.lock().unwrap().sessions.len(),
        1,
        "it dials again and again"
    );
    // Once at the next start.
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_host(|hosts| hosts.sessions.len() == 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cloud.hosts.lock().unwrap().sessions.len(), 2);
    let pki = cloud.data_dir().join("pki").display().to_string();
    let logged = cloud.logged();
    let line = logged
        .lines()
        .find(|line| line.contains("was forgotten"))
        .unwrap();
    assert!(
        line.contains("hearthd join-token") && line.contains(&pki),
        "{line}"
    );
    // Neither the agent's restart nor the host's starts the guest again.
    cloud.power_cut();
    cloud.start_agent();
    cloud.until_host(|hosts| hosts.sessions.len() == 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((cloud.living("i-1").len(), cloud.spawned("i-1").len()), (0, 1));
    assert!(cloud.data_dir().join("volumes/vol-of-i-1").exists());
    // It joins anew, and what its new cloud wants comes about, whatever the sequence.
    cloud.kill_agent();
    std::fs::remove_dir_all(cloud.data_dir().join("pki")).unwrap();
    cloud.hosts.lock().unwrap().forgotten.send_replace(false);
    cloud.intents.send_modify(|intents| {
        intents.sequence = 0;
        intents.instances.clear();
    });
    let intent = cloud.intent("i-2", 64);
    cloud.start_agent();
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-2", Phase::Running, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reinstalled_host_does_not_start_instances_with_an_empty_disk() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    // As after its run was seen by the control plane.
    let mut intent = cloud.intent("i-1", 64);
    intent.volumes[0].has_run = true;
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase("i-1", Phase::Ended, 1).await;
    let end = seen.end.unwrap();
    assert_eq!(end.cause(), Cause::StartFailed);
    assert!(
        end.message.contains("vol-of-i-1") && end.message.contains("is not on this host"),
        "{}",
        end.message
    );
    assert!(!cloud.data_dir().join("volumes/vol-of-i-1").exists());
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_joins_anew_takes_intents_of_its_new_cloud_and_keeps_what_runs() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let intent = cloud.intent("i-old", 64);
    for _ in 0..5 {
        cloud.want(|_| {});
    }
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-old", Phase::Running, 1).await;
    cloud.kill_agent();
    std::fs::remove_dir_all(cloud.data_dir().join("pki")).unwrap();
    // The new host's sequences begin at 0 again.
    cloud.intents.send_modify(|intents| {
        intents.sequence = 0;
        intents.instances.clear();
    });
    let intent = cloud.intent("i-new", 64);
    cloud.start_agent();
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-new", Phase::Running, 1).await;
    cloud.until("i-old", |seen| seen.phase() == Phase::Unknown).await;
    assert_eq!(cloud.living("i-old").len(), 1);
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-new", Phase::Gone, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_whose_answer_is_lost_is_repeated_with_the_same_key() {
    let mut cloud = Cloud::new().await;
    cloud.hosts.lock().unwrap().lost_answers = 2;
    cloud.start_agent();
    cloud.until_host(|hosts| !hosts.enrolled.is_empty()).await;
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_host(|hosts| !hosts.sessions.is_empty()).await;
    let mut keys = cloud.hosts.lock().unwrap().enrolled.clone();
    assert!(keys.len() >= 2);
    keys.dedup();
    assert_eq!(keys.len(), 1, "another key is another host");
    assert!(!cloud.data_dir().join("join.key").exists());
}
