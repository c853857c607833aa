//! Which connection gives its place to a new one, when all places are taken.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that name its network: hosts choose the others as they like.
const NETWORK_BITS: u32 = 64;

/// Where a connection comes from: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

impl Network {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - NETWORK_BITS);
                Self(IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask)))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// What is known of an open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) from: Network,
    /// Whether its request is here.
    pub(crate) is_asking: bool,
    /// Whether it is older than any that is answered as it should be.
    pub(crate) lingers: bool,
}

/// The connection to close, of those in the order in which they were taken; none if none lingers.
///
/// Of the networks with a connection that lingers, it comes from the one that holds most places, so that a flood from one address
/// costs the others nothing. It is the oldest without a request; where each has one, the oldest.
pub(crate) fn to_close(places: &[Place]) -> Option<usize> {
    let mut held: HashMap<Network, usize> = HashMap::new();
    for place in places {
        *held.entry(place.from).or_default() += 1;
    }
    let held_by = |place: &Place| held.get(&place.from).copied();
    let most = places.iter().filter(|place| place.lingers).filter_map(held_by).max()?;
    let candidate = |place: &Place| place.lingers && held_by(place) == Some(most);
    let idle = places.iter().position(|place| candidate(place) && !place.is_asking);
    idle.or_else(|| places.iter().position(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(from: &str, is_asking: bool) -> Place {
        Place { from: Network::of(from.parse().unwrap()), is_asking, lingers: true }
    }

    /// `count` places of one address.
    fn of(from: &str, is_asking: bool, count: usize) -> Vec<Place> {
        vec![place(from, is_asking); count]
    }

    /// One place each of `count` addresses.
    fn of_many(is_asking: bool, count: u8) -> Vec<Place> {
        (0..count).map(|last| place(&format!("10.0.1.{last}"), is_asking)).collect()
    }

    #[test]
    fn the_network_that_holds_most_gives_up_its_oldest_idle_place_first() {
        let (probe, asks) = (place("10.0.0.1", false), true);
        let young = |place: Place| Place { lingers: false, ..place };
        let new = |places: Vec<Place>| places.into_iter().map(young).collect::<Vec<_>>();
        let checks: [(&str, Vec<Place>, Option<usize>); 9] = [
            ("no place is taken", vec![], None),
            ("a flood from one address, a probe before it", [vec![probe], of("10.0.0.2", false, 50)].concat(), Some(1)),
            ("a flood that asks and does not read", [vec![probe], of("10.0.0.2", asks, 50)].concat(), Some(1)),
            ("idle before asking", [of("10.0.0.2", asks, 9), of("10.0.0.2", false, 30)].concat(), Some(9)),
            ("many addresses, a probe behind them", [of_many(false, 50), vec![probe]].concat(), Some(0)),
            ("many that ask, a probe behind them", [of_many(asks, 50), new(vec![probe])].concat(), Some(0)),
            ("many idle, an old one asks", [vec![place("10.0.0.1", asks)], of_many(false, 50)].concat(), Some(1)),
            ("only new ones", new(of("10.0.0.2", false, 50)), None),
            (
                "new ones of a flood, an old one of another",
                [new(of("10.0.0.2", asks, 50)), vec![probe]].concat(),
                Some(50),
            ),
        ];
        for (what, places, expected) in checks {
            assert_eq!(to_close(&places), expected, "{what}");
        }
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let same = |one: &str, other: &str| Network::of(one.parse().unwrap()) == Network::of(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1:2:3") && same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1") && !same("10.0.0.1", "10.0.0.2"));
    }
}
