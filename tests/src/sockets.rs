//! The connections that a process keeps open to others, as Linux tells them: its descriptors, and the kernel's table of sockets.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};

/// State of an open connection in the kernel's table.
const ESTABLISHED: &str = "01";
/// State of a socket that listens.
const LISTENING: &str = "0A";

/// One line of the kernel's table.
#[derive(Debug, PartialEq)]
struct Socket {
    local_port: u16,
    remote: SocketAddr,
    state: String,
    inode: u64,
}

/// How many connections a process has opened to each address. Those that others opened to it do not count: they are of its own
/// listeners' ports. IPv4 alone, which is all that the tests' servers speak.
pub fn outgoing(pid: u32) -> Result<BTreeMap<SocketAddr, usize>> {
    let own = descriptors(pid)?;
    let path = format!("/proc/{pid}/net/tcp");
    let table = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let sockets = table.lines().skip(1).map(parse).collect::<Option<Vec<_>>>();
    let sockets = sockets.with_context(|| format!("{path} is not as expected:\n{table}"))?;
    let own: Vec<_> = sockets.into_iter().filter(|socket| own.contains(&socket.inode)).collect();
    let ports: BTreeSet<_> =
        own.iter().filter(|socket| socket.state == LISTENING).map(|socket| socket.local_port).collect();
    let mut connections = BTreeMap::new();
    for socket in own.iter().filter(|socket| socket.state == ESTABLISHED && !ports.contains(&socket.local_port)) {
        *connections.entry(socket.remote).or_default() += 1;
    }
    Ok(connections)
}

/// The inodes of the sockets that a process has open.
fn descriptors(pid: u32) -> Result<BTreeSet<u64>> {
    let path = format!("/proc/{pid}/fd");
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(&path).with_context(|| format!("listing {path}"))? {
        let entry = entry.with_context(|| format!("listing {path}"))?;
        // One that was closed meanwhile has no link any more.
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        inodes.extend(socket_inode(&link));
    }
    Ok(inodes)
}

/// The inode in `socket:[inode]`; none of another descriptor.
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Reads `sl local remote state queues timer retransmits uid timeout inode …`.
fn parse(line: &str) -> Option<Socket> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (local, remote) = (address(words.get(1)?)?, address(words.get(2)?)?);
    let inode = words.get(9)?.parse().ok()?;
    Some(Socket { local_port: local.port(), remote, state: (*words.get(3)?).to_owned(), inode })
}

/// Reads `0100007F:1F90`: the address as a number in this machine's byte order, the port in plain hexadecimal digits.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn this_process_has_the_connections_that_it_opened_and_not_those_that_it_accepted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let of_this_test = || outgoing(std::process::id()).unwrap().get(&address).copied().unwrap_or_default();
        assert_eq!(of_this_test(), 0);
        let opened = [(), ()].map(|()| TcpStream::connect(address).unwrap());
        let accepted = [(), ()].map(|()| listener.accept().unwrap());
        assert_eq!(of_this_test(), 2);
        let all = outgoing(std::process::id()).unwrap();
        assert!(accepted.iter().all(|(_, client)| !all.contains_key(client)), "{all:?}");
        drop(opened);
        assert_eq!(of_this_test(), 0);
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let line =
            "   3: 0100007F:1F90 0200007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 8675309 1 0";
        let remote = "127.0.0.2:54321".parse().unwrap();
        let expected = Socket { local_port: 8_080, remote, state: ESTABLISHED.to_owned(), inode: 8_675_309 };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("  sl  local_address rem_address"), None);
    }
}
