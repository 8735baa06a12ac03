//! A host whose clock jumps.

use hearth_tests::metal::Rack;

use crate::site::Site;

/// Launches an instance, or learns of the one that this token has launched; its id.
fn launch(site: &mut Site, image: &str, token: &str) -> String {
    site.run(&format!(
        "hearth run-instances --image-id {image} --instance-type t2.nano --key-name hearth --security-groups ssh \
         --client-token {token} --wait --query 'Instances[0].InstanceId' --output text"
    ))
    .unwrap()
}

/// Ids of all instances that are not terminated, sorted.
fn alive(site: &mut Site) -> Vec<String> {
    let ids = site
        .run(
            "hearth describe-instances --filters Name=instance-state-name,Values=pending,running,stopping,stopped \
             --query 'Reservations[].Instances[].InstanceId' --output text",
        )
        .unwrap();
    let mut ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
    ids.sort();
    ids
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_clock_that_jumps_an_hour_ends_nothing_and_repeats_nothing() {
    let Some(rack) = Rack::new("a_clock_that_jumps_an_hour_ends_nothing_and_repeats_nothing").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    let monitors = site.monitors().unwrap();
    let image = site.field(&instance, "ImageId").unwrap();
    let second = launch(&mut site, &image, "jump");
    let both = alive(&mut site);
    assert_eq!(both.len(), 2, "{both:?}");
    for jump in ["+1 hour", "-2 hours", "+1 hour"] {
        site.run(&format!("date --set '{jump}'")).unwrap();
        // At once, and not after an end and a beginning.
        let state = site
            .run("hearth list-hosts --query 'Hosts[0].State' --output text")
            .unwrap();
        assert_eq!(state, "connected", "after {jump}");
        assert_eq!(launch(&mut site, &image, "jump"), second, "after {jump}");
        site.run(&format!(
            "hearth stop-instances --instance-ids {second} --wait && hearth start-instances --instance-ids {second} --wait"
        ))
        .unwrap();
        assert_eq!(alive(&mut site), both, "after {jump}");
        assert_eq!(site.ssh(&instance, "echo here").unwrap(), "here");
        let now = site.monitors().unwrap();
        let first = monitors.lines().next().unwrap();
        assert!(now.lines().any(|pid| pid == first), "{first} is not among {now}");
        // What has to be agreed upon anew is, too.
        site.run("systemctl restart hearth-agent").unwrap();
        site.connected().unwrap();
        site.run("systemctl restart hearthd").unwrap();
        site.connected().unwrap();
        assert_eq!(site.field(&instance, "State.Name").unwrap(), "running");
    }
}
