//! What befalls a host beside the end of its daemons: a clock that jumps, a disk without room.

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

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_store_without_room_refuses_and_goes_on_when_there_is_some() {
    let Some(rack) = Rack::new("a_store_without_room_refuses_and_goes_on_when_there_is_some").unwrap() else {
        return;
    };
    let mut machine = rack.machine("alpha").unwrap();
    let disk = machine.plug_disk("store", 512 << 20).unwrap();
    machine
        .run(&format!(
            "set -e; mkfs.ext4 -q -m 0 {disk}; mkdir -p /var/lib/hearth/controller; mount {disk} /var/lib/hearth/controller"
        ))
        .unwrap();
    let mut site = Site::new(&rack, machine).unwrap();
    site.script("up").unwrap();
    let instance = site.named("hello", "InstanceId").unwrap();
    let image = site.field(&instance, "ImageId").unwrap();
    let before = alive(&mut site);
    site.run(
        "cd /var/lib/hearth/controller
         dd if=/dev/zero of=ballast bs=64K conv=fsync 2>/dev/null; dd if=/dev/zero of=ballast2 bs=1K conv=fsync 2>/dev/null
         test -s ballast",
    )
    .unwrap();
    // What has some room left in the file that it has takes the first ones.
    let mut refusal = String::new();
    let mut tagged = 0;
    for n in 0..2000 {
        let tagging = site
            .try_run(&format!(
                "hearth create-tags --resources {instance} --tags Key=Full{},Value={n}-{}",
                n % 40,
                "x".repeat(200)
            ))
            .unwrap();
        if !tagging.status.success() {
            refusal = tagging.stderr;
            break;
        }
        tagged = n;
    }
    println!("after {tagged} changes: {refusal}");
    assert!(
        refusal.contains("Unavailable") || refusal.contains("InternalError"),
        "{refusal}"
    );
    let refused = site
        .try_run(&format!(
            "hearth run-instances --image-id {image} --instance-type t2.nano --client-token full"
        ))
        .unwrap();
    assert!(!refused.status.success(), "{refused}");
    // Reads need no room, and nothing has happened.
    assert_eq!(alive(&mut site), before);
    assert_eq!(site.ssh(&instance, "echo here").unwrap(), "here");
    site.run("rm /var/lib/hearth/controller/ballast /var/lib/hearth/controller/ballast2")
        .unwrap();
    // At once, or after a short time: the next call tells.
    site.run(&format!(
        "for n in $(seq 60); do \
         ! hearth create-tags --resources {instance} --tags Key=Room,Value=yes || exit 0; sleep 1; done; exit 1"
    ))
    .unwrap();
    // What was acknowledged is there, and the launch that was refused happens once.
    let value = site
        .run(&format!(
            "hearth describe-tags --filters Name=resource-id,Values={instance} Name=key,Values=Full{} \
             --query 'Tags[0].Value' --output text",
            tagged % 40
        ))
        .unwrap();
    assert!(value.starts_with(&format!("{tagged}-")), "{value}");
    let third = launch(&mut site, &image, "full");
    assert_eq!(launch(&mut site, &image, "full"), third);
    assert_eq!(alive(&mut site).len(), before.len() + 1);
    site.run("systemctl restart hearthd").unwrap();
    site.connected().unwrap();
    assert_eq!(alive(&mut site).len(), before.len() + 1);
    assert_eq!(site.field(&instance, "State.Name").unwrap(), "running");
}
