//! The log: a line on standard error for each event, which the agent keeps in a file.
//!
//! There are few events, and no spans: what tracing-subscriber has for those would be a tenth of the monitor.
//!
//! A guest can make some events happen as often as it likes. So a line has a longest length, and after many lines
//! there is one a minute, which says how many were left out: a guest does not fill the host's disk.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_log::Escaped;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Of most events that are logged, `error` to `trace`.
const LEVEL: &str = "RUST_LOG";
/// Bytes of what an event says; more is cut.
const LONGEST_LINE: usize = 1000;
/// So many lines are written whenever they come.
const SAVED_LINES: u32 = 1000;
/// And then one in each of these.
const PERIOD: Duration = Duration::from_secs(60);

/// Logs from here on: warnings and errors, or what `$RUST_LOG` says.
pub(crate) fn to_stderr() {
    let level = std::env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    let log = Log {
        level: level.unwrap_or(LevelFilter::WARN),
        allowance: Mutex::new(Allowance::new(Instant::now())),
    };
    // Nobody else sets one.
    let _ = tracing::subscriber::set_global_default(log);
}

struct Log {
    level: LevelFilter,
    allowance: Mutex<Allowance>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let allowance = self.allowance.lock();
        let taken = allowance
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        let Some(left_out) = taken else { return };
        let metadata = event.metadata();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = format!(
            "{}.{:03} {} {}:",
            now.as_secs(),
            now.subsec_millis(),
            metadata.level(),
            metadata.target()
        );
        let mut line = Line::new(head);
        event.record(&mut line);
        let mut line = line.0.into_inner();
        if left_out > 0 {
            // It cannot fail: it is a string.
            let _ = write!(line, " ({left_out} lines before this one were left out)");
        }
        line.push('\n');
        // In one piece, as other threads log, too.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// How many lines may still be written: [`SAVED_LINES`], of which one comes back in each [`PERIOD`].
struct Allowance {
    lines: u32,
    /// When the last one came back.
    at: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            lines: SAVED_LINES,
            at: now,
            left_out: 0,
        }
    }

    /// Whether a line may be written, and how many before it were not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.at);
        let periods = u32::try_from(elapsed.as_secs() / PERIOD.as_secs()).unwrap_or(u32::MAX);
        self.lines = self.lines.saturating_add(periods).min(SAVED_LINES);
        self.at += PERIOD.saturating_mul(periods);
        let Some(lines) = self.lines.checked_sub(1) else {
            self.left_out += 1;
            return None;
        };
        self.lines = lines;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The message first, then the fields as `name=value`: so the macros give them. What a guest or a client of the
/// control socket sent ends no line and starts none.
struct Line(Escaped<String>);

impl Line {
    fn new(head: String) -> Self {
        Self(Escaped::new(head, LONGEST_LINE))
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_one_a_minute_and_none_is_lost_untold() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let (mut written, mut told) = (0, 0);
        // Ten lines a second for an hour.
        const TRIED: u64 = 36_000;
        for at in 0..TRIED {
            if let Some(left_out) = allowance.take(start + Duration::from_millis(at * 100)) {
                written += 1;
                told += left_out;
            }
        }
        assert_eq!(written, u64::from(SAVED_LINES) + 59);
        assert_eq!(written + told + allowance.left_out, TRIED);
        // Quiet for long enough, it has saved all of them again, and no more.
        let later = start + Duration::from_secs(1 << 30);
        let lines = (0..).take_while(|_| allowance.take(later).is_some());
        assert_eq!(lines.count(), SAVED_LINES as usize);
    }

    /// What an event with these two fields writes.
    fn line(message: &str, field: &str) -> String {
        struct Lines(Mutex<String>);

        impl Subscriber for Lines {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }

            fn event(&self, event: &Event<'_>) {
                let mut line = Line::new("head:".into());
                event.record(&mut line);
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line.0.into_inner();
            }

            fn new_span(&self, _: &Attributes<'_>) -> Id {
                Id::from_u64(1)
            }

            fn record(&self, _: &Id, _: &Record<'_>) {}

            fn record_follows_from(&self, _: &Id, _: &Id) {}

            fn enter(&self, _: &Id) {}

            fn exit(&self, _: &Id) {}
        }

        let lines = std::sync::Arc::new(Lines(Mutex::default()));
        tracing::subscriber::with_default(lines.clone(), || tracing::warn!(field = %field, "{message}"));
        let line = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }

    #[test]
    fn no_event_makes_two_lines() {
        assert_eq!(
            line("a\n1.0 ERROR b:", "\x1b[2J\r"),
            "head: a\\n1.0 ERROR b: field=\\u{1b}[2J\\r"
        );
    }

    #[test]
    fn a_long_line_is_cut_between_letters() {
        let line = line(&"ü".repeat(LONGEST_LINE), "gone");
        assert!(
            line.len() <= LONGEST_LINE + "head:...".len() && line.ends_with("ü..."),
            "{line}"
        );
    }
}
