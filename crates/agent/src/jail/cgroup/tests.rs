use super::*;

fn of<'a>(trees: &'a [Tree], controller: &str) -> &'a Tree {
    let mut found = trees.iter().filter(|tree| tree.controllers.contains(&controller));
    let tree = found.next().unwrap();
    assert!(found.next().is_none(), "{controller} is in two trees");
    tree
}

#[test]
fn version_2_is_one_tree() {
    let mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";
    let trees = trees(mounts, |_| {
        "cpuset cpu io memory hugetlb pids rdma misc\n".to_owned()
    });
    assert_eq!(trees.len(), 1);
    for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
        assert_eq!(of(&trees, controller).root, Path::new("/sys/fs/cgroup"));
    }
}

#[test]
fn version_1_is_a_tree_for_each_and_the_empty_unified_one_is_none() {
    let mounts = "\
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /other/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0
";
    let trees = trees(mounts, |_| String::new());
    assert_eq!(of(&trees, "cpu").root, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(of(&trees, "memory").root, Path::new("/sys/fs/cgroup/memory"));
    assert_eq!(of(&trees, "io").version, Version::One);
    assert_eq!(trees.len(), 3);
}

#[test]
fn a_hybrid_host_has_some_of_each() {
    let mounts = "cgroup /cg/memory cgroup rw,memory 0 0\ncgroup2 /cg/unified cgroup2 rw 0 0\n";
    let trees = trees(mounts, |_| "cpu pids".to_owned());
    assert_eq!(of(&trees, "memory").version, Version::One);
    assert_eq!(of(&trees, "cpu").version, Version::Two);
}

#[test]
fn limits_follow_from_the_shape() {
    let limits = Limits::of(2, 1024);
    assert_eq!(limits.memory, (1024 + 32 + 64) << 20);
    let value = |version, controller| settings(version, controller, &limits, &[1, 3]);
    assert!(value(Version::Two, "cpu").contains(&("cpu.max", "300000 100000".to_owned())));
    assert!(value(Version::One, "cpu").contains(&("cpu.cfs_quota_us", "300000".to_owned())));
    assert!(value(Version::Two, "cpuset").contains(&("cpuset.cpus", "1,3".to_owned())));
    // Of the largest instance.
    assert!(
        settings(Version::Two, "cpu", &Limits::of(32, 1), &[]).contains(&("cpu.weight", "3200".to_owned()))
    );
}
