//! Log lines: JSON for machines, text for people at a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Sets up logging for the process; a second call changes nothing.
pub fn init(settings: LogSettings) {
    let level = match settings.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Libraries speak of connections and files, which is noise until something is wrong with them.
    let filter = EnvFilter::new(format!("warn,shortener_node={level}"));
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
