//! Log lines: JSON for machines, text for people at a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Sets up logging for the process; a second call changes nothing.
pub fn init(settings: LogSettings) {
    let filter = filter(settings.level);
    let format = settings.format.unwrap_or_else(|| match std::io::stdout().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let registry = tracing_subscriber::registry().with(filter);
    let set = match format {
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
            registry.with(json.with_span_list(false)).try_init()
        }
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_target(false)).try_init(),
    };
    if set.is_err() {
        tracing::debug!("logging is set up already");
    }
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
    EnvFilter::new(format!("warn,tikv_client=off,shortener_node={level}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// What was written, to be looked at.
    #[derive(Clone, Debug, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

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
            let writer = lines.clone();
            let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
            let subscriber = tracing_subscriber::registry().with(filter(level)).with(layer);
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "tikv_client::transaction::transaction", "the key is ada@example.com");
                tracing::error!(target: "tikv_client", "the key is ada@example.com");
                tracing::error!(target: "redis::cluster", "a library is in trouble");
                tracing::error!(target: "shortener_node::run", "the node is in trouble");
            });
            let written = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let written = String::from_utf8_lossy(&written);
            assert!(!written.contains("ada@example.com"), "{level:?}: {written}");
            assert!(written.contains("a library") && written.contains("the node"), "{level:?}: {written}");
        }
    }
}
