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
    assert_eq!(limits.memory, (1024 + 32 + 128) << 20);
    let value = |version, controller| settings(version, controller, &limits, &[1, 3]);
    assert!(value(Version::Two, "cpu").contains(&("cpu.max", "300000 100000".to_owned())));
    assert!(value(Version::One, "cpu").contains(&("cpu.cfs_quota_us", "300000".to_owned())));
    assert!(value(Version::Two, "cpuset").contains(&("cpuset.cpus", "1,3".to_owned())));
    // Of the largest instance.
    assert!(
        settings(Version::Two, "cpu", &Limits::of(32, 1), &[]).contains(&("cpu.weight", "3200".to_owned()))
    );
    assert!(
        settings(Version::Two, "io", &Limits::of(32, 1), &[]).contains(&("io.bfq.weight", "1000".to_owned()))
    );
}

/// The agent's place in trees that are directories.
fn in_directories(root: &Path, version: Version) -> Cgroups {
    let controllers = ["cpu", "memory", "pids", "io", "cpuset"];
    let tree = |name: &str, controllers: &[&'static str]| {
        let root = root.join(name);
        std::fs::create_dir_all(root.join("hearth/agent")).unwrap();
        Tree {
            version,
            root,
            controllers: controllers.to_vec(),
        }
    };
    let trees = match version {
        Version::One => controllers.iter().map(|name| tree(name, &[name])).collect(),
        Version::Two => vec![tree("unified", &controllers)],
    };
    // As the kernel has them in a new cpuset of version 1, and above it.
    for dir in ["cpuset/hearth/agent", "cpuset/hearth/agent/i-1"].map(|dir| root.join(dir)) {
        if version == Version::One {
            std::fs::create_dir_all(&dir).unwrap();
            let new = dir.ends_with("i-1");
            std::fs::write(dir.join("cpuset.cpus"), if new { "\n" } else { "0-3\n" }).unwrap();
            std::fs::write(dir.join("cpuset.mems"), if new { "\n" } else { "0\n" }).unwrap();
        }
    }
    Cgroups {
        trees,
        place: ("hearth".into(), "hearth/agent".into()),
    }
}

#[test]
fn every_limit_is_written_into_its_file() {
    let limits = Limits::of(2, 1024);
    let memory = limits.memory.to_string();
    let (cpus, tasks) = ([1, 3], TASKS.to_string());
    let version_1 = [
        ("cpu/hearth/agent/i-1/cpu.shares", "2048"),
        ("cpu/hearth/agent/i-1/cpu.cfs_period_us", "100000"),
        ("cpu/hearth/agent/i-1/cpu.cfs_quota_us", "300000"),
        ("memory/hearth/agent/i-1/memory.limit_in_bytes", &memory),
        ("pids/hearth/agent/i-1/pids.max", &tasks),
        ("io/hearth/agent/i-1/blkio.bfq.weight", "200"),
        ("cpuset/hearth/agent/i-1/cpuset.cpus", "1,3"),
        ("cpuset/hearth/agent/i-1/cpuset.mems", "0"),
    ];
    let version_2 = [
        ("unified/hearth/agent/i-1/cpu.weight", "200"),
        ("unified/hearth/agent/i-1/cpu.max", "300000 100000"),
        ("unified/hearth/agent/i-1/memory.max", &memory),
        ("unified/hearth/agent/i-1/pids.max", &tasks),
        ("unified/hearth/agent/i-1/io.weight", "200"),
        ("unified/hearth/agent/i-1/io.bfq.weight", "200"),
        ("unified/hearth/agent/i-1/cpuset.cpus", "1,3"),
    ];
    for (version, files) in [(Version::One, &version_1[..]), (Version::Two, &version_2)] {
        let root = tempfile::tempdir().unwrap();
        let cgroups = in_directories(root.path(), version);
        let group = cgroups.make("i-1", &limits, &cpus).unwrap();
        for (file, value) in files {
            let written = std::fs::read_to_string(root.path().join(file));
            assert_eq!(written.ok().as_deref(), Some(*value), "{file}");
        }
        assert_eq!(group.dirs().count(), cgroups.trees.len());
        // An instance's next monitor finds its group there, and may be of another shape.
        cgroups.make("i-1", &Limits::of(1, 64), &cpus).unwrap();
    }
}

#[test]
fn a_limit_that_is_refused_is_an_error_but_for_a_share_of_io() {
    for (file, may_fail) in [
        ("io.weight", true),
        ("io.bfq.weight", true),
        ("cpu.max", false),
        ("memory.max", false),
        ("pids.max", false),
        ("cpuset.cpus", false),
    ] {
        let root = tempfile::tempdir().unwrap();
        let cgroups = in_directories(root.path(), Version::Two);
        // Nobody can write into that.
        let refusing = root.path().join("unified/hearth/agent/i-1").join(file);
        std::fs::create_dir_all(refusing).unwrap();
        let made = cgroups.make("i-1", &Limits::of(1, 64), &[0]);
        assert_eq!(made.is_ok(), may_fail, "{file}");
        if let Err(error) = made {
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}

/// A version 2 tree of the kernel, mounted for this thread alone. Where version 1 has all our controllers, one that is
/// none of ours stands in for them as to what a group passes on.
#[test]
fn version_2_passes_on_what_there_is_and_keeps_the_limits() {
    const TEST: &str = "version_2_passes_on_what_there_is_and_keeps_the_limits";
    const STAND_IN: &str = "hugetlb";
    let Some(mount) = PrivateMount::new() else {
        eprintln!("SKIPPED: {TEST}: cgroup2 cannot be mounted");
        return;
    };
    let root = mount.directory.path();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let offered = read(root.join("cgroup.controllers"));
    let is_offered = |name: &str| offered.split_whitespace().any(|word| word == name);
    let parent = PathBuf::from(format!("hearth-test-{}", std::process::id()));
    let place = (parent.clone(), parent.join("agent"));
    let mut tree = Tree {
        version: Version::Two,
        root: root.to_owned(),
        controllers: vec!["cpu", "memory", "pids", "io", "cpuset", STAND_IN],
    };
    tree.prepare(&place).unwrap();
    for (name, _) in CONTROLLERS {
        if !is_offered(name) {
            eprintln!("SKIPPED: {TEST}: the limits of {name}: version 1 has it, or nobody");
        }
    }
    let passed: Vec<&str> = tree.controllers.clone();
    assert!(
        passed.iter().all(|name| is_offered(name)),
        "{passed:?} of {offered}"
    );
    for level in [&place.0, &place.1] {
        let on = read(root.join(level).join("cgroup.subtree_control"));
        for name in &passed {
            assert!(on.split_whitespace().any(|word| word == *name), "{name} in {on}");
        }
    }
    let cgroups = Cgroups {
        trees: vec![tree],
        place,
    };
    let limits = Limits::of(1, 64);
    let group = cgroups.make("i-1", &limits, &[0]).unwrap();
    let dir = root.join(&cgroups.place.1).join("i-1");
    for &controller in &passed {
        let files = settings(Version::Two, controller, &limits, &[0]);
        for (file, value) in files.into_iter().filter(|(file, _)| !file.starts_with("io.")) {
            assert_eq!(read(dir.join(file)).trim(), value, "{file}");
        }
    }
    if passed.contains(&STAND_IN) {
        assert!(read(dir.join("cgroup.controllers")).contains(STAND_IN));
    }
    // As a child does, between its fork and its exec.
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = sleeper.id().to_string();
    for file in group.process_files().unwrap() {
        std::io::Write::write_all(&mut &file, pid.as_bytes()).unwrap();
    }
    let inside = read(dir.join("cgroup.procs"));
    cgroups.remove("i-1");
    let stayed = dir.exists();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    cgroups.remove_all();
    assert_eq!(inside.trim(), pid);
    assert!(stayed, "a group with a process in it was removed");
    assert!(!root.join(&parent).exists(), "something is left");
}

/// Of this thread, and gone with it.
struct PrivateMount {
    directory: tempfile::TempDir,
}

impl PrivateMount {
    fn new() -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let directory = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).ok()?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
        let made = mount(
            Some("none"),
            directory.path(),
            Some("cgroup2"),
            MsFlags::empty(),
            none,
        );
        made.is_ok().then_some(Self { directory })
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // Before its directory is removed.
        let _ = nix::mount::umount2(self.directory.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
