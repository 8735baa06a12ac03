//! What is measured on a TCP connection to a guest: streams either way, and answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::running::Running;
use crate::wire::Wire;

/// Of a write and a read.
const CHUNK: usize = 1 << 18;

/// By the ports of RFC 863, 864 and 862.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Discard = 9,
    Generate = 19,
    Echo = 7,
}

/// How long is measured, after how long.
#[derive(Clone, Copy)]
pub struct Times {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// A stream's figures.
pub struct Stream {
    /// MiB a second.
    pub rate: f64,
    /// Microseconds of the monitor's processor time for a MiB, its vCPUs' threads not counted.
    pub cpu: f64,
}

/// Figures of one byte there and back, in microseconds.
pub struct Answers {
    pub median: f64,
    /// 99 of 100 take at most this long.
    pub late: f64,
    /// The monitor's processor time for one.
    pub cpu: f64,
}

mod ioctl {
    nix::ioctl_read_bad!(outq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// # Errors
/// The connection breaks, or the monitor ends.
pub fn stream(wire: &Wire, running: &Running, service: Service, times: Times) -> Result<Stream> {
    let mut connection = wire.connect(service as u16)?;
    let mut chunk = vec![0; CHUNK];
    let mut moved = 0_u64;
    let mut go_on = |until: Instant, moved: &mut u64| -> Result<u64> {
        while Instant::now() < until {
            let n = match service {
                Service::Discard => connection.write(&chunk)?,
                _ => connection.read(&mut chunk)?,
            };
            ensure!(n > 0, "the guest closed the connection");
            *moved += n as u64;
        }
        Ok(*moved - unacknowledged(&connection)?)
    };
    let before = go_on(Instant::now() + times.warm_up, &mut moved)?;
    let (begin, cpu) = (Instant::now(), running.cpu_without_vcpus()?);
    let after = go_on(begin + times.measured, &mut moved)?;
    let (took, cpu) = (begin.elapsed(), running.cpu_without_vcpus()? - cpu);
    let mib = (after - before) as f64 / f64::from(1 << 20);
    Ok(Stream {
        rate: mib / took.as_secs_f64(),
        cpu: cpu * 1e6 / mib,
    })
}

/// # Errors
/// The connection breaks, or the monitor ends.
pub fn answers(wire: &Wire, running: &Running, times: Times) -> Result<Answers> {
    let mut connection = wire.connect(Service::Echo as u16)?;
    let mut ask = || -> Result<f64> {
        let begin = Instant::now();
        connection.write_all(b"?")?;
        connection.read_exact(&mut [0])?;
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    };
    let warm = Instant::now() + times.warm_up;
    while Instant::now() < warm {
        ask()?;
    }
    let (begin, cpu) = (Instant::now(), running.cpu_without_vcpus()?);
    let mut asked = Vec::new();
    while begin.elapsed() < times.measured {
        asked.push(ask()?);
    }
    let cpu = running.cpu_without_vcpus()? - cpu;
    asked.sort_by(f64::total_cmp);
    let at = |share: usize| asked.get(asked.len() * share / 100).copied().unwrap_or(f64::NAN);
    Ok(Answers {
        median: at(50),
        late: at(99),
        cpu: cpu * 1e6 / asked.len() as f64,
    })
}

/// Bytes that were written and that the guest has not acknowledged.
fn unacknowledged(connection: &TcpStream) -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int to a live reference.
    unsafe { ioctl::outq(connection.as_raw_fd(), &mut bytes) }?;
    Ok(bytes as u64)
}
