use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

/// Who brings chunks.
struct Bringer {
    reader: BufReader<UnixStream>,
}

impl Bringer {
    fn connect(at: &Path) -> Bringer {
        let stream = UnixStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Bringer {
            reader: BufReader::new(stream),
        }
    }

    fn asked(&mut self) -> (String, u64) {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let ask: Ask = serde_json::from_str(&line).unwrap();
        (ask.base, ask.chunk)
    }

    fn answer(&mut self, base: &str, chunk: u64, error: Option<&str>) {
        let answer = Answer {
            base: base.to_owned(),
            chunk,
            error: error.map(str::to_owned),
        };
        let line = serde_json::to_string(&answer).unwrap();
        writeln!(self.reader.get_mut(), "{line}").unwrap();
    }
}

fn fetch(from: &Arc<dyn Fetch>, chunk: u64) -> Receiver<io::Result<()>> {
    let (done, come) = channel();
    from.fetch(chunk, Box::new(move |result| done.send(result).unwrap()));
    come
}

fn come(from: &Receiver<io::Result<()>>) -> io::Result<()> {
    from.recv_timeout(Duration::from_secs(10)).unwrap()
}

#[test]
fn whoever_comes_next_is_asked_for_all_that_has_not_come() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("socket");
    let bases = Bases::new(Some(UnixListener::bind(&at).unwrap()));
    let [one, two] = ["ami-1", "snap-2"].map(|name| bases.fetch(name).unwrap());
    // Nobody is there yet.
    let early = fetch(&one, 7);
    let mut first = Bringer::connect(&at);
    assert_eq!(first.asked(), ("ami-1".to_owned(), 7));
    let (again, other) = (fetch(&one, 7), fetch(&two, 7));
    assert_eq!(first.asked(), ("snap-2".to_owned(), 7));
    first.answer("snap-2", 7, Some("no such snapshot"));
    assert_eq!(come(&other).unwrap_err().to_string(), "no such snapshot");
    first.answer("ami-1", 7, None);
    assert!(come(&early).is_ok() && come(&again).is_ok());
    // One that is killed, and one that babbles.
    let waits = fetch(&two, 1);
    assert_eq!(first.asked(), ("snap-2".to_owned(), 1));
    drop(first);
    let also = fetch(&one, 9);
    let mut second = Bringer::connect(&at);
    assert_eq!(
        [second.asked(), second.asked()],
        [("ami-1".to_owned(), 9), ("snap-2".to_owned(), 1)]
    );
    writeln!(second.reader.get_mut(), "babble").unwrap();
    // The one that comes last counts, though the other has not gone.
    let mut third = Bringer::connect(&at);
    assert_eq!(
        [third.asked(), third.asked()],
        [("ami-1".to_owned(), 9), ("snap-2".to_owned(), 1)]
    );
    let mut fourth = Bringer::connect(&at);
    assert_eq!(
        [fourth.asked(), fourth.asked()],
        [("ami-1".to_owned(), 9), ("snap-2".to_owned(), 1)]
    );
    // What nobody asked for is nobody's.
    fourth.answer("ami-9", 1, None);
    fourth.answer("snap-2", 1, None);
    fourth.answer("ami-1", 9, None);
    assert!(come(&waits).is_ok() && come(&also).is_ok());
}

#[test]
fn the_thread_ends_with_the_machine_and_nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    let bases = Bases::new(Some(listener));
    for name in ["", &"x".repeat(NAME_LIMIT + 1)] {
        assert!(bases.fetch(name).is_err());
    }
    let from = bases.fetch("ami-1").unwrap();
    let waits = fetch(&from, 1);
    bases.close();
    assert!(come(&waits).is_err() && come(&fetch(&from, 2)).is_err());
    drop((bases, from));
    assert!(Bases::default().fetch("ami-1").is_err());
}
