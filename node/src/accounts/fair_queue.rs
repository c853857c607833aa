//! Who is next at a queue that many share: whoever has had the least of late, by address and by network.
//!
//! Pure: takes the time and who asks, gives who is next and who has to go. A job waits in a [`Lane`]; lanes take turns, so
//! that registrations never hold up sign-ins, and a flood of strangers never those who signed in from their network before.
//! Within a lane goes first whose networks have used least: each counts what it uses, halved every ten minutes, in
//! proportion to its size ([`networks`]). A full lane makes room for a newcomer that is ahead of its last. So 256
//! neighbours that ask without a pause are served with what the others leave. (Shortest attained service first, and
//! dropping from whoever holds most: "Analysis and Simulation of a Fair Queueing Algorithm", Demers, Keshav, Shenker 1989.)

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use quick_cache::unsync::Cache;

use crate::limits::networks::{Level, networks};

/// The most networks whose use is remembered, at about a hundred bytes each. Of more the least active begin anew.
pub const NETWORKS_MAX: usize = 32_768;
/// How long a job waits at most. Whoever is ahead of the others waits for one job, which takes a quarter of a second, or two
/// seconds where the machine is busy: that and the job itself are to end before the request's deadline.
pub const WAIT_MAX: Duration = Duration::from_secs(5);
/// What a network used counts half after so long.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// What one job counts: shares of it are whole numbers, and so are its halves for four half-lives.
const JOB: u64 = 256;
/// What a job counts that is refused: little, but who asks again and again is not for ever as new as who asks for the first time.
const REFUSED: u64 = JOB / 8;

/// Which line a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A sign-in from a network that its account signed in from before.
    Known,
    /// Any other sign-in.
    Login,
    /// A registration.
    Registration,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Known, Self::Login, Self::Registration];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Login => "login",
            Self::Registration => "registration",
        }
    }
}

/// The order in which lanes take turns while all have jobs; an empty one gives its turn to the next.
const TURNS: [Lane; 8] =
    [Lane::Known, Lane::Login, Lane::Known, Lane::Login, Lane::Known, Lane::Login, Lane::Known, Lane::Registration];

struct Waiting<T> {
    lane: Lane,
    address: IpAddr,
    since: Duration,
    number: u64,
    job: T,
}

/// Smaller goes first: what the networks used in proportion to their size, what the address used, and who came first.
type Rank = (u64, u64, u64);

/// The queue.
pub struct FairQueue<T> {
    waiting: Vec<Waiting<T>>,
    lane_places: usize,
    used: Used,
    turn: usize,
    number: u64,
}

impl<T> FairQueue<T> {
    /// An empty queue with `lane_places` places in each lane.
    pub fn new(lane_places: usize) -> Self {
        let used = Used(Cache::new(NETWORKS_MAX));
        Self { waiting: Vec::with_capacity(lane_places * Lane::ALL.len()), lane_places, used, turn: 0, number: 0 }
    }

    /// Takes a job in. Gives back the job that has no place any more: none, another one, or this one.
    pub fn push(&mut self, now: Duration, lane: Lane, address: IpAddr, job: T) -> Option<T> {
        self.number += 1;
        self.used.add(now, address);
        self.waiting.push(Waiting { lane, address, since: now, number: self.number, job });
        if self.waiting.iter().filter(|waiting| waiting.lane == lane).count() <= self.lane_places {
            return None;
        }
        let last = self.ranked(now, lane).max().map(|(_, at)| at)?;
        let displaced = self.waiting.swap_remove(last);
        self.used.take_back(now, displaced.address);
        Some(displaced.job)
    }

    /// The job whose turn it is.
    pub fn pop(&mut self, now: Duration) -> Option<T> {
        let turns = (0..TURNS.len()).map(|step| (self.turn + step) % TURNS.len());
        let (turn, next) =
            turns.into_iter().find_map(|turn| Some((turn, self.ranked(now, TURNS[turn]).min().map(|(_, at)| at)?)))?;
        self.turn = (turn + 1) % TURNS.len();
        Some(self.waiting.swap_remove(next).job)
    }

    /// The jobs that have waited for too long: they leave the queue, and count as refused.
    pub fn take_late(&mut self, now: Duration) -> Vec<T> {
        let is_late = |waiting: &mut Waiting<T>| now.saturating_sub(waiting.since) > WAIT_MAX;
        let late: Vec<_> = self.waiting.extract_if(.., is_late).collect();
        for waiting in &late {
            self.used.take_back(now, waiting.address);
        }
        late.into_iter().map(|waiting| waiting.job).collect()
    }

    fn ranked(&self, now: Duration, lane: Lane) -> impl Iterator<Item = (Rank, usize)> {
        let of_lane = self.waiting.iter().enumerate().filter(move |(_, waiting)| waiting.lane == lane);
        of_lane.map(move |(at, waiting)| {
            let (by_network, by_address) = self.used.of(now, waiting.address);
            ((by_network, by_address, waiting.number), at)
        })
    }
}

impl<T> fmt::Debug for FairQueue<T> {
    /// Without addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// What networks have used, the jobs that wait included.
struct Used(Cache<IpNet, Use>);

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Which half-life `amount` is of.
    period: u64,
    /// In [`JOB`]s.
    amount: u64,
}

impl Use {
    fn at(self, now: Duration) -> Self {
        let period = now.as_secs() / HALF_LIFE.as_secs();
        let halvings = u32::try_from(period.saturating_sub(self.period)).unwrap_or(u32::MAX);
        Self { period, amount: self.amount.checked_shr(halvings).unwrap_or(0) }
    }
}

impl Used {
    fn add(&mut self, now: Duration, address: IpAddr) {
        self.change(now, address, |amount| amount.saturating_add(JOB));
    }

    fn take_back(&mut self, now: Duration, address: IpAddr) {
        self.change(now, address, |amount| amount.saturating_sub(JOB - REFUSED));
    }

    fn change(&mut self, now: Duration, address: IpAddr, change: impl Fn(u64) -> u64) {
        for (network, _) in networks(address) {
            let Use { period, amount } = self.0.peek(&network).copied().unwrap_or_default().at(now);
            self.0.insert(network, Use { period, amount: change(amount) });
        }
    }

    /// What the networks of an address have used: the most of any in proportion to its size, and that of the address.
    fn of(&self, now: Duration, address: IpAddr) -> (u64, u64) {
        let used = |network: &IpNet| self.0.peek(network).copied().unwrap_or_default().at(now).amount;
        let shares = || networks(address).map(|(network, Level { share, .. })| used(&network) / share);
        (shares().max().unwrap_or(0), shares().next().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What bcrypt takes on one core.
    const JOB_TIME: Duration = Duration::from_millis(250);
    const LANE_PLACES: usize = 8;

    /// One thread at the queue, and what became of each job: how long it took, or that it was refused.
    fn served(asked: impl IntoIterator<Item = (Duration, Lane, IpAddr)>) -> Vec<(IpAddr, Option<Duration>)> {
        let mut asked: Vec<_> = asked.into_iter().collect();
        asked.sort_by_key(|(at, ..)| *at);
        let mut asked: VecDeque<_> = asked.into();
        let mut queue = FairQueue::new(LANE_PLACES);
        let (mut served, mut now) = (Vec::new(), Duration::ZERO);
        loop {
            while let Some((at, lane, address)) = asked.pop_front_if(|(at, ..)| *at <= now) {
                served.extend(queue.push(at, lane, address, (at, address)).map(|(_, address)| (address, None)));
            }
            served.extend(queue.take_late(now).into_iter().map(|(_, address)| (address, None)));
            match (queue.pop(now), asked.front()) {
                (Some((since, address)), _) => {
                    now += JOB_TIME;
                    served.push((address, Some(now.saturating_sub(since))));
                }
                (None, Some((at, ..))) => now = *at,
                (None, None) => return served,
            }
        }
    }

    /// `addresses` in turn, `a_second` of them, for a minute.
    fn flood(addresses: &[IpAddr], lane: Lane, a_second: u32) -> Vec<(Duration, Lane, IpAddr)> {
        let at = |n: u32| Duration::from_secs(1) * n / a_second;
        addresses.iter().cycle().zip(0..60 * a_second).map(|(address, n)| (at(n), lane, *address)).collect()
    }

    /// Sixty others, one a second, each from a network of its own; the last of them after the flood has begun.
    fn others(lane: Lane) -> Vec<(Duration, Lane, IpAddr)> {
        (0..60_u8)
            .map(|n| (Duration::from_secs(u64::from(n)) + JOB_TIME / 3, lane, IpAddr::from([198, 18 + n, n, 1])))
            .collect()
    }

    fn of_ipv6(count: u16, make: impl Fn(u16) -> [u16; 8]) -> Vec<IpAddr> {
        (0..count).map(|n| IpAddr::from(make(n))).collect()
    }

    fn check_flood(name: &str, flooders: &[IpAddr], from: Lane, lane: Lane) {
        let others = others(lane);
        let in_time = served(flood(flooders, from, 15).into_iter().chain(others.iter().copied()))
            .into_iter()
            .filter(|(address, took)| {
                !flooders.contains(address) && took.is_some_and(|took| took <= Duration::from_secs(3))
            })
            .count();
        assert!(in_time * 100 >= others.len() * 95, "{name}: {in_time} of {}", others.len());
    }

    #[test]
    fn a_flood_is_served_with_what_others_leave() {
        let neighbours: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([203, 0, 113, n])).collect();
        let everywhere: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([n, 0, 113, 7])).collect();
        let of_one_16: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([203, 0, n, 7])).collect();
        for (name, flooders) in [
            ("one /64", of_ipv6(256, |n| [0x2001, 0xdb8, 1, 0, 0, 0, 0, n])),
            ("256 /64s of one /56", of_ipv6(256, |n| [0x2001, 0xdb8, 1, n, 0, 0, 0, 1])),
            ("256 /64s of one /48", of_ipv6(256, |n| [0x2001, 0xdb8, 1, n << 8, 0, 0, 0, 1])),
            ("256 /48s of one /32", of_ipv6(256, |n| [0x2001, 0xdb8, n, 0, 0, 0, 0, 1])),
            ("60 addresses of one /24", neighbours),
            ("60 addresses of one /16", of_one_16),
            ("60 addresses from everywhere", everywhere),
        ] {
            for lane in [Lane::Login, Lane::Registration] {
                check_flood(name, &flooders, lane, lane);
            }
        }
    }

    #[test]
    fn a_flood_from_everywhere_leaves_those_who_were_there_before_their_places() {
        let everywhere: Vec<IpAddr> = (0..=255).map(|n| IpAddr::from([n, 1, 1, 1])).collect();
        check_flood("strangers", &everywhere, Lane::Login, Lane::Known);
        check_flood("registrations", &everywhere, Lane::Registration, Lane::Known);
        check_flood("registrations", &everywhere, Lane::Registration, Lane::Login);
        // Nor do accounts that somebody made for it shut out those without one.
        check_flood("accounts", &everywhere, Lane::Known, Lane::Login);
    }

    #[test]
    fn a_neighbour_of_a_flood_is_ahead_of_it_too() {
        let flooders: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([203, 0, 113, n])).collect();
        let neighbours: Vec<_> = (0..20_u8)
            .map(|n| (Duration::from_secs(20 + u64::from(n)), Lane::Login, IpAddr::from([203, 0, 113, 100 + n])))
            .collect();
        let served = served(flood(&flooders, Lane::Login, 15).into_iter().chain(neighbours));
        let in_time = served.iter().filter(|(address, took)| !flooders.contains(address) && took.is_some()).count();
        assert!(in_time >= 19, "{in_time} of 20");
    }

    #[test]
    fn without_a_flood_everybody_is_served_in_order() {
        let mut queue = FairQueue::new(LANE_PLACES);
        for n in 0..8 {
            assert_eq!(queue.push(Duration::ZERO, Lane::Login, IpAddr::from([n, 0, 0, 1]), n), None);
        }
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop(Duration::ZERO)).collect();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_lane_gives_up_the_job_of_who_holds_most_and_other_lanes_keep_theirs() {
        let mut queue = FairQueue::new(2);
        let (greedy, modest) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
        assert_eq!(queue.push(Duration::ZERO, Lane::Registration, greedy, "registration"), None);
        assert_eq!(queue.push(Duration::ZERO, Lane::Login, greedy, "first"), None);
        assert_eq!(queue.push(Duration::ZERO, Lane::Login, greedy, "second"), None);
        assert_eq!(queue.push(Duration::ZERO, Lane::Login, greedy, "third"), Some("third"));
        assert_eq!(queue.push(Duration::ZERO, Lane::Login, modest, "modest"), Some("second"));
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(Duration::ZERO)).collect();
        assert_eq!(left, ["modest", "first", "registration"]);
    }

    #[test]
    fn a_job_that_waited_too_long_leaves_and_costs_its_network_little() {
        let mut queue = FairQueue::new(2);
        let address = IpAddr::from([192, 0, 2, 1]);
        queue.push(Duration::ZERO, Lane::Login, address, "late");
        let later = WAIT_MAX + Duration::from_millis(1);
        assert_eq!(queue.take_late(WAIT_MAX), Vec::<&str>::new());
        assert_eq!(queue.take_late(later), ["late"]);
        assert_eq!(queue.used.of(later, address).1, REFUSED);
        assert_eq!(queue.pop(later), None);
    }

    #[test]
    fn use_is_forgotten_with_time_and_the_table_is_bounded() {
        let mut used = Used(Cache::new(NETWORKS_MAX));
        let address = IpAddr::from([192, 0, 2, 1]);
        used.add(Duration::ZERO, address);
        assert_eq!(used.of(Duration::ZERO, address).1, JOB);
        assert_eq!(used.of(HALF_LIFE, address).1, JOB / 2);
        assert_eq!(used.of(HALF_LIFE * 100, address).1, 0);
        for n in 0..u32::try_from(NETWORKS_MAX).unwrap() {
            used.add(Duration::ZERO, std::net::Ipv4Addr::from(n << 8).into());
        }
        assert!(used.0.len() <= NETWORKS_MAX);
    }
}
