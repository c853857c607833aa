//! What a stranger may hold open on a listener, and for how long.

use std::time::Duration;

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// How long a client may take to send a request's head; also how long an idle connection of HTTP/1 is kept.
    pub header_timeout: Duration,
    /// How long a connection is kept on which no request begins: silent from the start, or its last answer is still not read.
    pub idle_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: u32,
    /// Header lines in a request.
    pub headers_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
}

impl ConnectionLimits {
    /// For the public. The limit of open files may lower the number of connections.
    pub const PUBLIC: Self = Self {
        connections_max: 16_384,
        header_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(45),
        // Cookies of other services on the same domain come along, and browsers send up to 16 KiB of them.
        header_bytes_max: 32 * 1024,
        headers_max: 100,
        streams_max: 128,
    };
}
