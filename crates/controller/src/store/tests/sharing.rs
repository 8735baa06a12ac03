//! Several processes on one PostgreSQL. Stores in one process stand for them.

use super::*;
use crate::state::{SecurityGroup, Vpc};

/// A takeover's longest time.
const TAKEOVER: Duration = Duration::from_secs(5);

fn server(test: &str) -> Option<Place> {
    Postgres::start(test).map(Place::Postgres)
}

fn a_vpc(id: &str) -> Vpc {
    Vpc {
        id: id.into(),
        account_id: "1".into(),
        region: "local-1".into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        is_default: false,
        dns_support: true,
        dns_hostnames: true,
        created_at: 0,
        tags: Default::default(),
    }
}

fn a_group(id: &str, name: &str) -> SecurityGroup {
    SecurityGroup {
        id: id.into(),
        account_id: "1".into(),
        region: "local-1".into(),
        vpc_id: "vpc-1".into(),
        name: name.into(),
        description: String::new(),
        created_at: 0,
        tags: Default::default(),
    }
}

#[tokio::test]
async fn a_follower_has_what_the_leader_commits() {
    let Some(place) = server("a_follower_has_what_the_leader_commits") else {
        return;
    };
    let leader = place.open().await;
    let follower = place.follower("127.0.0.1:2").await;
    let refused = transact(&follower, |tx| tx.put(a_host("h-0"))).await.unwrap_err();
    assert!(matches!(refused, CommitError::NotLeader), "{refused:?}");
    let mut told = follower.bus().watch_instances();
    transact(&leader, |tx| {
        tx.put(a_vpc("vpc-1"));
        tx.put(a_group("sg-1", "one"));
        tx.put(a_group("sg-2", "two"));
        tx.put(a_host("h-1"));
        tx.event("instance.pending", "i-1");
    })
    .await
    .unwrap();
    // Whoever forwards a call waits for what it changed.
    follower.caught_up(leader.state().sequence()).await;
    assert_eq!(follower.state().count::<SecurityGroup>(), 2);
    assert_eq!(&*told.recv().await.unwrap(), "i-1");
    // A unique key goes from one object to another, and an object goes, in whatever order a follower reads it.
    transact(&leader, |tx| {
        tx.put(a_group("sg-1", "free"));
        tx.put(a_group("sg-2", "one"));
        tx.put(a_group("sg-1", "two"));
        tx.remove::<Host>("h-1");
    })
    .await
    .unwrap();
    follower.caught_up(leader.state().sequence()).await;
    let state = follower.state();
    state.check();
    assert_eq!(state.group_named("vpc-1", "one").unwrap().id, "sg-2");
    assert_eq!(
        (state.count::<Host>(), state.sequence()),
        (0, leader.state().sequence())
    );
    // What is forgotten of what is gone is not missed by a follower that was away.
    let postgres = super::super::Postgres::open(&place.database(), "away")
        .await
        .unwrap();
    let away = postgres.load().await.unwrap();
    transact(&leader, |tx| {
        tx.remove::<SecurityGroup>("sg-1");
    })
    .await
    .unwrap();
    assert!(leader.forget_history(i64::MAX, i64::MAX).await.unwrap() > 0);
    transact(&leader, |tx| tx.put(a_host("h-2"))).await.unwrap();
    let newer = postgres.newer_than(&away).await.unwrap().unwrap().state;
    assert_eq!((newer.count::<SecurityGroup>(), newer.count::<Host>()), (1, 1));
    let mut members = follower.members();
    let all = members.wait_for(|members| *members == ["127.0.0.1:1", "127.0.0.1:2"]);
    let _ = tokio::time::timeout(SOON, all).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leader_whose_lease_was_taken_writes_nothing() {
    let Some(place) = server("a_leader_whose_lease_was_taken_writes_nothing") else {
        return;
    };
    let old = place.open().await;
    transact(&old, |tx| tx.put(a_host("h-0"))).await.unwrap();
    // Another takes the lease at once, as if this process had been stopped for long and did not know it yet.
    let other = super::super::Postgres::open(&place.database(), "new")
        .await
        .unwrap();
    let held = other.look().await.unwrap();
    let epoch = other.take(&held, "new", "127.0.0.1:2").await.unwrap().unwrap();
    assert!(epoch > held.epoch);
    assert_eq!(other.take(&held, "late", "127.0.0.1:3").await.unwrap(), None);
    assert!(old.is_leader(), "it does not know");
    let refused = transact(&old, |tx| tx.put(a_host("h-1"))).await.unwrap_err();
    assert!(matches!(refused, CommitError::NotLeader), "{refused:?}");
    assert_eq!(old.state().count::<Host>(), 1);
    let Place::Postgres(server) = &place else { return };
    assert_eq!(
        server
            .sql("SELECT count(*) FROM objects WHERE kind = 'host'")
            .unwrap(),
        "1"
    );
    // The new one does not renew: the old one is the leader again, in another epoch.
    let mut standing = old.standing();
    let deposed = standing.wait_for(|standing| matches!(standing, Standing::Follower(_)));
    let _ = tokio::time::timeout(SOON, deposed).await.unwrap().unwrap();
    led(&old).await;
    transact(&old, |tx| tx.put(a_host("h-2"))).await.unwrap();
    assert_eq!(old.state().count::<Host>(), 2);
}

#[tokio::test]
async fn a_follower_takes_the_place_of_a_leader_that_is_gone_or_stands_still() {
    let Some(place) = server("a_follower_takes_the_place_of_a_leader_that_is_gone_or_stands_still") else {
        return;
    };
    let mut leader = place.open().await;
    for (n, is_gone) in [true, false, true, false].into_iter().enumerate() {
        let next = place.follower(&format!("127.0.0.1:{}", n + 2)).await;
        transact(&leader, move |tx| tx.put(a_host(&format!("h-{n}"))))
            .await
            .unwrap();
        // A leader that stands still renews nothing, and keeps its connections.
        leader.tasks[1].abort();
        let still = (!is_gone).then_some(leader);
        let took = led(&next).await;
        eprintln!(
            "takeover: {took:?} after a leader {}",
            if is_gone { "went" } else { "stood still" }
        );
        assert!(took < TAKEOVER, "{took:?}");
        if let Some(still) = still {
            let late = transact(&still, |tx| tx.put(a_host("h-late"))).await;
            assert!(matches!(late, Err(CommitError::NotLeader)), "{late:?}");
        }
        transact(&next, move |tx| assert_eq!(tx.count::<Host>(), n + 1))
            .await
            .unwrap();
        leader = next;
    }
    // One that ends gives the lease back.
    let next = place.follower("127.0.0.1:9").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    leader.close().await;
    let took = led(&next).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let Some(mut place) = server("a_database_that_is_away_is_waited_for") else {
        return;
    };
    let store = place.open().await;
    let mut acknowledged = Vec::new();
    let Place::Postgres(server) = &mut place else {
        return;
    };
    for round in 0..2 {
        let id = format!("h-{round}");
        let host = id.clone();
        transact(&store, move |tx| tx.put(a_host(&host))).await.unwrap();
        acknowledged.push(id);
        server.kill();
        let refused = transact(&store, |tx| tx.put(a_host("h-refused")))
            .await
            .unwrap_err();
        let error = ApiError::from(refused);
        assert_eq!(error.code, hearth_api::ErrorCode::Unavailable, "{error:?}");
        // Longer than a lease lasts.
        tokio::time::sleep(Duration::from_secs(if round == 0 { 0 } else { 4 })).await;
        server.run();
        let began = Instant::now();
        while transact(&store, |tx| tx.put(a_host("h-again"))).await.is_err() {
            assert!(began.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        transact(&store, |tx| tx.remove::<Host>("h-again")).await.unwrap();
        let ids: Vec<String> = store.state().hosts().map(|host| host.id.clone()).collect();
        assert_eq!(
            ids, acknowledged,
            "nothing that was refused, all that was acknowledged"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_told_without_the_password() {
    let url: DatabaseUrl = "postgres://hearth:hunter2@127.0.0.1:1/hearth".parse().unwrap();
    let error = Store::open_in(Path::new("/nowhere"), &url, "").await.unwrap_err();
    let told = format!("{} {error:?}", hearth_log::chain(&error));
    assert!(told.contains("127.0.0.1:1/hearth"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}
