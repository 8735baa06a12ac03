//! The daemons' subscriber: tracing-subscriber's lines, with fields that cannot break out of theirs.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Escaped;

/// Directives for what is logged, such as `debug` or `info,hearth_network=trace`.
const FILTER: &str = "HEARTH_LOG";
/// Bytes of one field; more is cut. Call sites have a few fields each, so a line is bounded too.
const MAX_FIELD: usize = 2000;

/// Logs to standard error from here on: what `$HEARTH_LOG` says, or `default`.
pub fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(default));
    to(io::stderr, filter, io::stderr().is_terminal()).init();
}

fn to<W>(writer: W, filter: EnvFilter, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .fmt_fields(OneLine)
        .finish()
}

/// Formats fields as tracing-subscriber does, each escaped and cut: here, so that no call site can forget it.
struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor {
            writer,
            result: Ok(()),
            is_first: true,
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
    is_first: bool,
}

impl Visitor<'_> {
    fn field(&mut self, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if name != "message" {
            write!(self.writer, "{name}=")?;
        }
        // It fails when it cuts.
        let _ = write!(Escaped::new(&mut self.writer, MAX_FIELD), "{value:?}");
        Ok(())
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // `log.*` say where a record of the log crate comes from; the line's head says it already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            let name = field.name().trim_start_matches("r#");
            self.result = self.field(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(events: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = to(move || writer.clone(), EnvFilter::new("info"), false);
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_read_as_tracing_subscribers_own() {
        let log = logged(|| {
            let error = io::Error::other("no luck");
            tracing::info!(host = "h-1", %error, count = 3, r#type = ?Some(1), "a host joined");
            tracing::debug!("not asked for");
        });
        let (_, line) = log.split_once("Z ").unwrap();
        let expected = " INFO hearth_log::subscriber::tests: a host joined host=\"h-1\" error=no luck count=3 \
                        type=Some(1)\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn nobody_forges_a_line_or_drives_a_terminal() {
        let forged = "x\n2026-11-26T00:00:00Z  INFO hearth_controller: all is well\r\x1b[2J\u{9b}31m\u{202e}";
        let log = logged(|| {
            tracing::warn!(message = forged, "refused");
            tracing::warn!(text = forged, display = %forged, debug = ?forged, list = ?[forged], "{forged}");
        });
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
        assert!(!log.contains('\u{202e}'), "{log:?}");
    }

    #[test]
    fn sixty_megabytes_are_a_short_line_at_once() {
        let long = "x".repeat(60 << 20);
        let began = Instant::now();
        let log = logged(|| tracing::info!(text = long, display = %long, debug = ?[&long; 4], "{long}"));
        assert!(log.len() < 4 * (MAX_FIELD + 20) + 200, "{} bytes", log.len());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
