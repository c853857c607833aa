//! Which addresses a cluster has. Without a kubelet all is on loopback. With one there is a machine beside this one (a
//! network namespace), and pods on it: they, it and this machine reach each other by addresses that no real network has.
use std::net::Ipv4Addr;

use shortener_node::ambient::random;

/// 198.18.0.0/15 is for networks under test (RFC 2544): no machine that runs the tests has anything else there.
const TEST_NETWORKS: u32 = 0xc612_0000;
const TEST_NETWORKS_BITS: u32 = 15;
/// Each cluster has its own part: addresses of the link, then of Services, then of pods.
const CLUSTER_BITS: u32 = 21;
const PART: u32 = 1 << (u32::BITS - PART_BITS);
const PART_BITS: u32 = 24;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Network {
    /// Services lead nowhere, so that all clusters may have the same addresses for them.
    Loopback,
    /// The number of a part of the test networks.
    Part(u32),
}

impl Network {
    /// One of the parts, which may be taken by another cluster.
    pub(super) fn any_part() -> Self {
        Self::Part(u32::from_le_bytes(random()) >> (u32::BITS - (CLUSTER_BITS - TEST_NETWORKS_BITS)))
    }

    /// This machine, as pods see it.
    pub(super) fn host(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Part(number) => address(number, 0, 1),
        }
    }

    /// The machine that pods run on.
    pub(super) fn k8s_node(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Part(number) => address(number, 0, 2),
        }
    }

    pub(super) fn services(self) -> String {
        match self {
            Self::Loopback => "10.96.0.0/24".to_owned(),
            Self::Part(number) => format!("{}/{PART_BITS}", address(number, 1, 0)),
        }
    }

    /// The API server, as pods see it: the first Service.
    pub(super) fn api_service(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::new(10, 96, 0, 1),
            Self::Part(number) => address(number, 1, 1),
        }
    }

    pub(super) fn pods(self) -> String {
        match self {
            Self::Loopback => "10.244.0.0/24".to_owned(),
            Self::Part(number) => format!("{}/{PART_BITS}", address(number, 2, 0)),
        }
    }

    /// What the link to the machine, and whatever else there may be but one of, is called.
    pub(super) fn name(self) -> String {
        match self {
            Self::Loopback => "shortener".to_owned(),
            Self::Part(number) => format!("shortener{number}"),
        }
    }
}

fn address(cluster: u32, part: u32, host: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(TEST_NETWORKS + (cluster << (u32::BITS - CLUSTER_BITS)) + part * PART + host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_lies_in_the_test_networks_and_in_no_other_part() {
        let last = Network::Part(63);
        assert_eq!(Network::Part(0).host(), Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(last.pods(), "198.19.250.0/24");
        assert_eq!(Network::Part(1).services(), "198.18.9.0/24");
        for _ in 0..100 {
            let Network::Part(number) = Network::any_part() else { panic!("a part was asked for") };
            assert!(number < 64);
        }
    }
}
