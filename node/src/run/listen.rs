//! The sockets that the node listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::RunError;
use crate::config::{Config, ListenOn};
use crate::http::serve::ConnectionLimits;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Where a node listens.
#[derive(Debug)]
pub struct Listeners {
    /// Public HTTP.
    pub public: TcpListener,
    /// Probes and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds the addresses of the configuration. Needs a runtime.
    pub fn bind(config: &Config) -> Result<Self, RunError> {
        Ok(Self {
            public: listen("LISTEN_ADDR", config.listen_on)?,
            admin: listen("ADMIN_ADDR", config.admin_listen_on)?,
        })
    }
}

fn listen(setting: &'static str, on: ListenOn) -> Result<TcpListener, RunError> {
    bind(on).map_err(|source| RunError::Listen { setting, on, source })
}

fn bind(on: ListenOn) -> io::Result<TcpListener> {
    match on {
        ListenOn::Address(address) => bind_address(address, false),
        ListenOn::AllInterfaces { port } => {
            let any = |ip: IpAddr| SocketAddr::new(ip, port);
            bind_address(any(Ipv6Addr::UNSPECIFIED.into()), true).or_else(|error| match is_without_ipv6(&error) {
                true => bind_address(any(Ipv4Addr::UNSPECIFIED.into()), false),
                false => Err(error),
            })
        }
    }
}

/// Whether this machine has no IPv6: its kernel was started without, or has no address of it.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT))
}

fn bind_address(address: SocketAddr, is_dual_stack: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_dual_stack {
        // Whatever the machine's default is: `localhost` is an address of each kind.
        socket.set_only_v6(false)?;
    }
    // A node that starts again finds its port free, although connections of the last one are still being closed.
    socket.set_reuse_address(true)?;
    // Connections inherit it. Left to itself the kernel keeps up to 4 MiB for each.
    socket.set_send_buffer_size(ConnectionLimits::PUBLIC.send_buffer)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn port_of(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn all_interfaces_are_those_of_ipv4_and_of_ipv6() {
        let listener = bind(ListenOn::AllInterfaces { port: 0 }).unwrap();
        let port = port_of(&listener);
        let mut hosts: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        // A machine without IPv6 has the other one alone.
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            hosts.push(Ipv6Addr::LOCALHOST.into());
        }
        for host in hosts {
            let (connected, accepted) = tokio::join!(TcpStream::connect((host, port)), listener.accept());
            connected.unwrap();
            assert_eq!(accepted.unwrap().1.ip().to_canonical(), host);
        }
    }

    #[tokio::test]
    async fn an_address_that_is_given_is_taken_as_it_is() {
        let listener = bind(ListenOn::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
        let port = port_of(&listener);
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.is_err());
        let taken = bind(ListenOn::AllInterfaces { port }).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_a_machine_without_ipv6_listens_on_ipv4_alone() {
        for (errno, expected) in [
            (Errno::AFNOSUPPORT, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::PROTONOSUPPORT, true),
            (Errno::ADDRINUSE, false),
            (Errno::ACCESS, false),
            (Errno::MFILE, false),
        ] {
            assert_eq!(is_without_ipv6(&errno.into()), expected, "{errno}");
        }
    }
}
