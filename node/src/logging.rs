//! Log lines: JSON for machines, text for people at a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel, LogSettings};

/// What hears log lines, or spans.
pub(crate) type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up logging for the process, and beside it `traces`, if they are sent; a second call changes nothing.
pub fn init(settings: LogSettings, traces: Option<Listener>) {
    let format = settings.format.unwrap_or_else(|| match std::io::stdout().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let lines = match format {
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
            json.with_span_list(false).boxed()
        }
        LogFormat::Text => tracing_subscriber::fmt::layer().with_target(false).boxed(),
    };
    if tracing_subscriber::registry().with(listeners(settings.level, lines, traces)).try_init().is_err() {
        tracing::debug!("logging is set up already");
    }
}

/// Each listener has a filter of its own, so that where there are no traces every span is off for good, once and for all.
pub(crate) fn listeners(level: LogLevel, lines: Listener, traces: Option<Listener>) -> Vec<Listener> {
    let lines = lines.with_filter(filter(level)).boxed();
    std::iter::once(lines).chain(traces).collect()
}

/// What is shown at `level`.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Libraries speak of connections and files, which is noise until something is wrong with them. TiKV's client also speaks
    // of keys, and with them of codes and e-mail addresses: our own lines say what failed.
    // Spans are for traces alone: in lines they would be noise.
    EnvFilter::new(format!("warn,tikv_client=off,traces=off,shortener_node={level}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// What was written, to be looked at.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// What was written.
        pub(crate) fn text(&self) -> String {
            let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&written).into_owned()
        }

        /// What writes here.
        pub(crate) fn listener(&self) -> Listener {
            let writer = self.clone();
            tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).boxed()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_client_that_writes_keys_into_its_lines_is_not_heard_and_others_are() {
        for level in [LogLevel::Error, LogLevel::Info, LogLevel::Trace] {
            let lines = Lines::default();
            let subscriber = tracing_subscriber::registry().with(listeners(level, lines.listener(), None));
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "tikv_client::transaction::transaction", "the key is ada@example.com");
                tracing::error!(target: "tikv_client", "the key is ada@example.com");
                tracing::error!(target: "redis::cluster", "a library is in trouble");
                tracing::error!(target: "shortener_node::run", "the node is in trouble");
            });
            let written = lines.text();
            assert!(!written.contains("ada@example.com"), "{level:?}: {written}");
            assert!(written.contains("a library") && written.contains("the node"), "{level:?}: {written}");
        }
    }
}
