//! Connections that say nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use hearth_api::v1;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Hearthd, Host, SOON, ZONE, enroll};

/// Descriptors that services have where nobody has said otherwise.
const USUAL: u32 = 1024;
const IDLE: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    if most < 3 * IDLE as u64 {
        eprintln!("SKIPPED: idle_connections_keep_nobody_out: at most {most} descriptors");
        return;
    }
    let hearthd = Hearthd::with_files(USUAL);
    let host = Host::enroll(&hearthd).await;
    let (socket, agent_address) = (hearthd.socket(), hearthd.agent_listen().to_owned());
    let idle = tokio::task::spawn_blocking(move || {
        let callers: Vec<UnixStream> = (0..IDLE)
            .map(|n| {
                let mut stream = UnixStream::connect(&socket).unwrap();
                // Half of them begin: the preface and empty settings (RFC 9113, section 3.4).
                if n % 2 == 0 {
                    // hearthd may have closed it by then.
                    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
                }
                stream
            })
            .collect();
        let agents: Vec<TcpStream> = (0..IDLE)
            .map(|_| TcpStream::connect(&agent_address).unwrap())
            .collect();
        (callers, agents)
    });
    let idle = idle.await.unwrap();
    // Handshakes without a certificate, and no call.
    let mut guests = Vec::new();
    for _ in 0..100 {
        guests.push(hearthd.control_plane(None).await);
    }

    let answered = async {
        let client = hearthd.client().await;
        let request = v1::DescribeVpcsRequest::default();
        client.clone().vpcs.describe_vpcs(request).await.unwrap();
        host.connect(&hearthd).await.intents().await;
        // Another one can join.
        let token = hearthd.join_token();
        enroll(&hearthd, &token.secret, ZONE).await.unwrap();
    };
    tokio::time::timeout(SOON, answered).await.expect("kept out");
    let open = std::fs::read_dir(format!("/proc/{}/fd", hearthd.pid()))
        .unwrap()
        .count();
    eprintln!("{open} descriptors beside {} idle connections", 2 * IDLE);
    assert!(open < USUAL as usize, "{open}");
    drop((idle, guests));
}
