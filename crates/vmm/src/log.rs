//! The log: a line on standard error for each event, which the agent keeps in a file.
//!
//! There are few events, and no spans: what tracing-subscriber has for those would be a tenth of the monitor.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Of most events that are logged, `error` to `trace`.
const LEVEL: &str = "RUST_LOG";

/// Logs from here on: warnings and errors, or what `$RUST_LOG` says.
pub(crate) fn to_stderr() {
    let level = std::env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    let log = Log {
        level: level.unwrap_or(LevelFilter::WARN),
    };
    // Nobody else sets one.
    let _ = tracing::subscriber::set_global_default(log);
}

struct Log {
    level: LevelFilter,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Line(format!(
            "{}.{:03} {} {}:",
            now.as_secs(),
            now.subsec_millis(),
            metadata.level(),
            metadata.target()
        ));
        event.record(&mut line);
        line.0.push('\n');
        // In one piece, as other threads log, too.
        let _ = io::stderr().write_all(line.0.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message first, then the fields as `name=value`: so the macros give them.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
