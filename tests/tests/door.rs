//! Who gets in at the API's door: by a real socket, real users and the real command line.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use hearth_tests::{binary, skipped};
use nix::unistd::Uid;

/// Ids that no user and no group of the machine has.
const HEARTHD_UID: u32 = 64_011;
const HEARTHD_GID: u32 = 64_012;
const NOBODY: u32 = 65_534;
/// One that every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// A directory that everyone may look into and only root can change, with the programs in it.
struct Place {
    dir: tempfile::TempDir,
    hearthd: Option<Child>,
}

impl Place {
    fn new(test: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            skipped(test, "not root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("hearth-door-")
            .tempdir_in("/run")
            .unwrap();
        let place = Self { dir, hearthd: None };
        mode(place.dir.path(), 0o755);
        for program in ["hearthd", "hearth"] {
            std::fs::copy(binary(program).unwrap(), place.path(program)).unwrap();
            mode(&place.path(program), 0o755);
        }
        for name in ["api", "data"] {
            std::fs::create_dir(place.path(name)).unwrap();
            chown(place.path(name), Some(HEARTHD_UID), Some(HEARTHD_GID)).unwrap();
        }
        mode(&place.path("api"), 0o755);
        mode(&place.path("data"), 0o700);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("api/api.sock")
    }

    /// As root, which hearthd gives up for the owner of its data directory.
    fn start(&mut self) {
        let mut hearthd = Command::new(self.path("hearthd"))
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--agent-listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(hearthd.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("ready "), "{line}");
        self.hearthd = Some(hearthd);
    }

    fn stop(&mut self) {
        let mut hearthd = self.hearthd.take().unwrap();
        hearthd.kill().unwrap();
        hearthd.wait().unwrap();
    }

    fn call(&self, who: &[String], socket: &Path) -> Output {
        as_user(who)
            .arg(self.path("hearth"))
            .args(["describe-regions", "--endpoint-url"])
            .arg(format!("unix:{}", socket.display()))
            .output()
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.hearthd.is_some() {
            self.stop();
        }
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// `setpriv` with the ids and groups of a user.
fn as_user(who: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(who).env("HOME", "/nonexistent");
    command
}

fn nobody(groups: &str) -> Vec<String> {
    vec![
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        groups.to_owned(),
    ]
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_group_is_the_only_door() {
    let Some(mut place) = Place::new("the_group_is_the_only_door") else {
        return;
    };
    place.start();
    let pid = place.hearthd.as_ref().unwrap().id();

    // It runs as the owner of its data, and so do the commands that root runs beside it.
    assert_eq!(
        std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(),
        HEARTHD_UID
    );
    let token = Command::new(place.path("hearthd"))
        .arg("join-token")
        .arg("--data-dir")
        .arg(place.path("data"))
        .output()
        .unwrap();
    assert!(token.status.success(), "{}", said(&token));
    let mut folders = vec![place.path("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            assert_eq!(found.uid(), HEARTHD_UID, "{}", entry.path().display());
            assert_eq!(found.mode() & 0o077, 0, "{}", entry.path().display());
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }

    let socket = std::fs::metadata(place.socket()).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o7777), (HEARTHD_GID, 0o660));
    assert_eq!(tcp_listeners(pid), 1, "the agents' port alone");

    let member = place.call(&nobody(&format!("--groups={HEARTHD_GID}")), &place.socket());
    assert!(member.status.success(), "{}", said(&member));
    let root = place.call(&[], &place.socket());
    assert!(root.status.success(), "{}", said(&root));

    let stranger = place.call(&nobody("--clear-groups"), &place.socket());
    assert_eq!(stranger.status.code(), Some(255));
    assert_eq!(
        said(&stranger),
        "nobody may not call hearthd: run `sudo usermod -aG hearth nobody` and log in again\n"
    );

    // While hearthd is down nobody can take its place.
    place.stop();
    for take in [
        vec!["touch".into(), place.path("api/x").into_os_string()],
        vec!["rm".into(), "-f".into(), place.socket().into_os_string()],
    ] {
        let taken = as_user(&nobody(&format!("--groups={HEARTHD_GID}")))
            .args(&take)
            .output()
            .unwrap();
        assert!(!taken.status.success(), "{take:?}");
    }
    let down = place.call(&nobody(&format!("--groups={HEARTHD_GID}")), &place.socket());
    assert!(
        said(&down).starts_with("hearthd does not run: "),
        "{}",
        said(&down)
    );
    // What was left behind does not hinder the next one.
    place.start();
}

#[test]
fn an_impostor_is_told_nothing() {
    let test = "an_impostor_is_told_nothing";
    let Some(place) = Place::new(test) else {
        return;
    };
    if !Path::new(PYTHON).exists() {
        return skipped(test, "/usr/bin/python3 is absent");
    }
    // Where everyone can make sockets.
    let public = place.path("public");
    std::fs::create_dir(&public).unwrap();
    mode(&public, 0o1777);
    let socket = public.join("api.sock");
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.bind(sys.argv[1])\n\
                  s.listen()\n\
                  print('ready', flush=True)\n\
                  c, _ = s.accept()\n\
                  print('heard', len(c.recv(1000)), flush=True)\n";
    let mut impostor = as_user(&nobody("--clear-groups"))
        .args([PYTHON, "-c", script])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(impostor.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let refused = place.call(&[], &socket);
    assert_eq!(refused.status.code(), Some(255));
    assert!(
        said(&refused).contains("this is not hearthd"),
        "{}",
        said(&refused)
    );
    assert_eq!(lines.next().unwrap().unwrap(), "heard 0");
    impostor.wait().unwrap();
}

/// Listening TCP sockets of a process.
fn tcp_listeners(pid: u32) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links: Vec<String> = fds
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap());
    tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            fields[3] == "0A" && links.contains(&format!("socket:[{}]", fields[9]))
        })
        .count()
}
