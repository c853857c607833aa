//! The networks that an address is part of, from its own to the widest.
//!
//! Who has one address often has its neighbours: a household has an IPv6 /56, a small provider's customer a /48, a rented
//! server farm an IPv4 /24. Counted by address alone, 256 neighbours count as 256 strangers.

use std::net::IpAddr;

use ipnet::IpNet;

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The length of its prefix, in bits.
    prefix_bits: u8,
    /// How many times a rule for one address it may use.
    pub limit_factor: u32,
    /// How many addresses' share of a queue it has.
    pub share: u64,
}

const fn level(prefix_bits: u8, limit_factor: u32, share: u64) -> Level {
    Level { prefix_bits, limit_factor, share }
}

/// An IPv4 address may stand for an office or for a provider's many customers, and its neighbours are others' more often
/// than in IPv6: the factors are wide, since the queue for passwords shares out what they let through.
const IPV4: &[Level] = &[level(32, 1, 1), level(24, 16, 2), level(16, 64, 8)];
/// A /64 is one household or machine, a /56 or /48 one customer, a /32 one provider.
const IPV6: &[Level] = &[level(64, 1, 1), level(56, 4, 2), level(48, 16, 4), level(32, 256, 16)];

/// The most networks that an address is part of here.
pub const LEVELS_MAX: usize = 4;
const _: () = assert!(IPV4.len() <= LEVELS_MAX && IPV6.len() == LEVELS_MAX);

/// The networks of `address`, narrowest first: the first one is what counts as one caller.
pub fn networks(address: IpAddr) -> impl Iterator<Item = (IpNet, Level)> {
    let address = address.to_canonical();
    let levels = if address.is_ipv4() { IPV4 } else { IPV6 };
    // The prefixes above fit their family, so that each is a network.
    levels.iter().filter_map(move |level| Some((IpNet::new(address, level.prefix_bits).ok()?.trunc(), *level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_part_of_ever_wider_networks() {
        for (address, expected) in [
            ("192.0.2.77", &["192.0.2.77/32", "192.0.2.0/24", "192.0.0.0/16"][..]),
            ("::ffff:192.0.2.77", &["192.0.2.77/32", "192.0.2.0/24", "192.0.0.0/16"]),
            (
                "2001:db8:1:2ff:3:4:5:6",
                &["2001:db8:1:2ff::/64", "2001:db8:1:200::/56", "2001:db8:1::/48", "2001:db8::/32"],
            ),
        ] {
            let found: Vec<_> = networks(address.parse().unwrap()).map(|(network, _)| network.to_string()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_wider_network_may_use_more_and_has_a_larger_share() {
        for levels in [IPV4, IPV6] {
            assert_eq!((levels[0].limit_factor, levels[0].share), (1, 1));
            for pair in levels.windows(2) {
                assert!(pair[0].limit_factor < pair[1].limit_factor && pair[0].share < pair[1].share);
            }
        }
    }
}
