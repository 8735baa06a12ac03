//! Connections that say nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use hearth_api::v1;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Hearthd, Host, SOON, ZONE, enroll};
use crate::trust::{Port, identity, owner};

/// Descriptors that services have where nobody has said otherwise.
const USUAL: u32 = 1024;
const IDLE: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    if most < 4 * IDLE as u64 {
        eprintln!("SKIPPED: idle_connections_keep_nobody_out: at most {most} descriptors");
        return;
    }
    let hearthd = Hearthd::with_files(USUAL);
    let host = Host::enroll(&hearthd).await;
    let (socket, agent_address) = (hearthd.socket(), hearthd.agent_listen().to_owned());
    let port = Port::of(&hearthd);
    let signers_address = ("127.0.0.1", port.port);
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
        let signers: Vec<TcpStream> = (0..IDLE)
            .map(|n| {
                let mut stream = TcpStream::connect(signers_address).unwrap();
                // The beginning of TLS, of HTTP/2, of HTTP/1.1, and of nothing.
                let begin = [&b"\x16\x03\x01"[..], b"PRI * ", b"POST / HTTP/1.1\r\n", b""][n % 4];
                let _ = stream.write_all(begin);
                stream
            })
            .collect();
        (callers, agents, signers)
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
        let transport = port
            .connect("https", "localhost", &port.trust(), &owner(&hearthd))
            .await;
        identity(transport.unwrap()).await.unwrap();
        // Another one can join.
        let token = hearthd.join_token();
        enroll(&hearthd, &token.secret, ZONE).await.unwrap();
    };
    tokio::time::timeout(SOON, answered).await.expect("kept out");
    let open = std::fs::read_dir(format!("/proc/{}/fd", hearthd.pid()))
        .unwrap()
        .count();
    eprintln!("{open} descriptors beside {} idle connections", 3 * IDLE);
    assert!(open < USUAL as usize, "{open}");
    drop((idle, guests));
}
