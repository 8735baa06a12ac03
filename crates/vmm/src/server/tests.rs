use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::control::{DESCRIPTOR_LIMIT, LINE_LIMIT, send};

struct Bench {
    server: Server,
    epoll: Epoll,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let epoll = Epoll::new().unwrap();
        let server = Server::new(UnixListener::bind(&path).unwrap(), &epoll).unwrap();
        Self {
            server,
            epoll,
            path,
            _dir: dir,
        }
    }

    fn connect(&mut self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        self.turn();
        stream
    }

    /// Handles what is ready and returns the requests, unanswered.
    fn pull(&mut self) -> Vec<Asked> {
        let mut ready = [EpollEvent::default(); 8];
        let count = self.epoll.wait(1000, &mut ready).unwrap();
        for event in &ready[..count] {
            assert!(self.server.handle(event, &self.epoll));
        }
        std::iter::from_fn(|| self.server.next_request(&self.epoll)).collect()
    }

    /// Answers each request with Ok, as long as there are some.
    fn turn(&mut self) {
        for asked in self.pull() {
            self.server.reply(asked.client, Reply::Ok, &self.epoll);
        }
    }
}

fn line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// A file that can be told from others.
fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn contents(descriptors: Vec<OwnedFd>) -> Vec<String> {
    let read = |fd: OwnedFd| {
        let (mut file, mut text) = (File::from(fd), String::new());
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    descriptors.into_iter().map(read).collect()
}

#[test]
fn requests_in_pieces_are_answered_and_events_announced() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.write_all(b"\"sta").unwrap();
    bench.turn();
    client.write_all(b"tus\"\n").unwrap();
    bench.turn();
    assert_eq!(line(&client), "{\"reply\":\"ok\"}\n");
    bench.server.announce(&Event::Reset { boots: 2 }, &bench.epoll);
    assert_eq!(line(&client), "{\"event\":{\"reset\":{\"boots\":2}}}\n");
}

#[test]
fn what_is_no_request_is_told_what_is_allowed() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    for wrong in [
        "nonsense\n",
        "\"explode\"\n",
        "\n",
        "{\"status\":{}}\n",
        "\u{fffd}\n",
    ] {
        client.write_all(wrong.as_bytes()).unwrap();
        bench.turn();
        let answer = line(&client);
        assert!(answer.contains("not a request"), "{answer}");
        assert!(answer.contains("status, metrics"), "{answer}");
    }
}

#[test]
fn a_complaint_does_not_repeat_a_long_line() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let deletes = "\u{7f}".repeat(LINE_LIMIT - 100);
    client
        .write_all(format!("{{\"set_balloon_target\":{{\"mib\":\"{deletes}\"}}}}\n").as_bytes())
        .unwrap();
    bench.turn();
    let answer = line(&client);
    assert!(
        answer.contains("not a request") && answer.len() < 4096,
        "{answer}"
    );
}

#[test]
fn a_client_waits_for_its_answer_and_others_do_not() {
    let mut bench = Bench::new();
    let mut patient = bench.connect();
    let mut other = bench.connect();
    patient.write_all(b"\"stop\"\n\"status\"\n").unwrap();
    let asked = bench.pull();
    assert_eq!(asked.len(), 1);
    other.write_all(b"\"status\"\n").unwrap();
    bench.turn();
    assert_eq!(line(&other), "{\"reply\":\"ok\"}\n");
    let message = "in the end".into();
    bench
        .server
        .reply(asked[0].client, Reply::Error { message }, &bench.epoll);
    let rest: Vec<_> = std::iter::from_fn(|| bench.server.next_request(&bench.epoll)).collect();
    assert!(matches!(
        rest[..],
        [Asked {
            request: Request::Status,
            ..
        }]
    ));
    assert_eq!(
        line(&patient),
        "{\"reply\":{\"error\":{\"message\":\"in the end\"}}}\n"
    );
    // Gone before its answer: nobody minds, and its id is not another's.
    drop(patient);
    bench.turn();
    bench.server.reply(rest[0].client, Reply::Ok, &bench.epoll);
    assert_eq!(bench.server.clients.len(), 1);
}

#[test]
fn descriptors_come_with_their_request() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let (first, second) = (file("first"), file("second"));
    client.write_all(b"\"status\"\n").unwrap();
    send(&client, b"\"reset\"\n", &[first.as_fd(), second.as_fd()]).unwrap();
    send(&client, b"\"sta", &[second.as_fd()]).unwrap();
    client.write_all(b"tus\"\n\"stop\"\n").unwrap();
    let mut found = Vec::new();
    while found.len() < 4 {
        let mut asked = bench.pull();
        while let Some(Asked {
            client,
            request,
            descriptors,
        }) = asked.pop()
        {
            found.push((request, contents(descriptors)));
            bench.server.reply(client, Reply::Ok, &bench.epoll);
            asked.extend(bench.server.next_request(&bench.epoll));
        }
    }
    let none = Vec::<String>::new();
    assert_eq!(
        found,
        [
            (Request::Status, none.clone()),
            (Request::Reset, vec!["first".into(), "second".into()]),
            (Request::Status, vec!["second".into()]),
            (Request::Stop, none),
        ]
    );
}

#[test]
fn descriptors_of_a_wrong_request_are_closed() {
    let mut bench = Bench::new();
    let client = bench.connect();
    let (reader, writer) = std::io::pipe().unwrap();
    send(&client, b"nonsense\n", &[writer.as_fd()]).unwrap();
    drop(writer);
    bench.turn();
    assert!(line(&client).contains("not a request"));
    // The end of the pipe: nobody holds its writer.
    assert_eq!((&reader).read(&mut [0]).unwrap(), 0);
}

#[test]
fn too_many_descriptors_drop_the_client() {
    let mut bench = Bench::new();
    let file = file("");
    let many = vec![file.as_fd(); DESCRIPTOR_LIMIT + 1];
    let hoarder = bench.connect();
    assert!(send(&hoarder, b"x", &many).is_err());
    for _ in 0..2 {
        assert_eq!(bench.server.clients.len(), 1);
        send(&hoarder, b"x", &many[1..]).unwrap();
        bench.turn();
    }
    assert!(bench.server.clients.is_empty());
}

#[test]
fn babblers_and_the_deaf_are_dropped() {
    let mut bench = Bench::new();
    let mut babbler = bench.connect();
    babbler.write_all(&[b'x'; LINE_LIMIT]).unwrap();
    bench.turn();
    assert!(bench.server.clients.is_empty());
    // Longer than it may be, but with an end: in two pieces, of which neither is.
    let mut wordy = bench.connect();
    wordy.write_all(&[b'x'; LINE_LIMIT - 1]).unwrap();
    bench.turn();
    assert_eq!(bench.server.clients.len(), 1);
    wordy.write_all(b"x\n").unwrap();
    bench.turn();
    assert!(bench.server.clients.is_empty());
    let _deaf = bench.connect();
    for boots in 0..100_000 {
        bench.server.announce(&Event::Reset { boots }, &bench.epoll);
    }
    assert!(bench.server.clients.is_empty());
}

#[test]
fn the_number_of_clients_is_bounded() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..CLIENT_LIMIT + 3).map(|_| bench.connect()).collect();
    assert_eq!(bench.server.clients.len(), CLIENT_LIMIT);
    drop(clients);
}
