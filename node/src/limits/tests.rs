//! The rule as properties, and the table under many threads.

use std::thread;

use proptest::prelude::*;

use super::unknown_codes::{UNKNOWN_CODES_MAX, UnknownCodes};
use super::*;
use crate::ambient::{Clock, UnixMs};

fn rule(requests: u32, window_s: u64) -> LimitRule {
    LimitRule::new(requests, Duration::from_secs(window_s)).unwrap()
}

/// The moments, of those asked at, at which requests passed.
fn passed(rule: LimitRule, asked_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut counters = Counters::default();
    asked_ms
        .into_iter()
        .filter(|&now_ms| {
            let (counted, decision) = decide(counters, rule, now_ms);
            counters = counted;
            decision.allowed
        })
        .collect()
}

/// The most of `moments` in any half-open span as long as the window.
fn most_in_a_window(rule: LimitRule, moments: &[u64]) -> usize {
    let mut from = 0;
    let mut most = 0;
    for (to, now_ms) in moments.iter().enumerate() {
        while moments[from] + rule.window_ms <= *now_ms {
            from += 1;
        }
        most = most.max(to - from + 1);
    }
    most
}

#[test]
fn the_count_goes_down_to_nothing_and_comes_back_as_the_window_slides() {
    let rule = rule(3, 60);
    let mut counters = Counters::default();
    let said =
        |allowed, remaining, reset_s, retry_after_s| Decision { allowed, limit: 3, remaining, reset_s, retry_after_s };
    for (now_ms, expected) in [
        (60_000, said(true, 2, 60, 0)),
        (60_000, said(true, 1, 60, 0)),
        (75_500, said(true, 0, 45, 0)),
        // Full: one of the three has faded a third of the way into the next window, at 140 s.
        (75_500, said(false, 0, 45, 65)),
        (119_999, said(false, 0, 1, 21)),
        (120_000, said(false, 0, 60, 20)),
        (139_999, said(false, 0, 41, 1)),
        (140_000, said(true, 0, 40, 0)),
        (140_000, said(false, 0, 40, 20)),
        (160_000, said(true, 0, 20, 0)),
        // The window after next knows nothing of the first.
        (300_000, said(true, 2, 60, 0)),
    ] {
        let (counted, decision) = decide(counters, rule, now_ms);
        assert_eq!(decision, expected, "at {now_ms} ms, {counters:?}");
        counters = counted;
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let second = Duration::from_secs(1);
    for (requests, window) in [
        (0, second),
        (LIMIT_REQUESTS_MAX + 1, second),
        (1, Duration::ZERO),
        (1, Duration::from_millis(999)),
        (1, LIMIT_WINDOW_MAX + second),
    ] {
        assert_eq!(LimitRule::new(requests, window), Err(LimitRuleError), "{requests} in {window:?}");
    }
    assert!(LimitRule::new(LIMIT_REQUESTS_MAX, LIMIT_WINDOW_MAX).is_ok());
}

#[test]
fn subjects_are_users_addresses_and_networks_and_no_address_is_printed() {
    let of = |text: &str| Subject::of_address(text.parse().unwrap());
    for (text, shown) in [
        ("192.0.2.1", "a192.0.2.1"),
        ("::ffff:192.0.2.1", "a192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "a2001:db8:1:2::"),
        ("2001:db8:1:2::", "a2001:db8:1:2::"),
        ("2001:db8:1:3::1", "a2001:db8:1:3::"),
    ] {
        assert_eq!(of(text).to_string(), shown);
        assert_eq!(format!("{:?}", of(text)), "Address(…)");
    }
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(Subject::User(UserId(7.try_into().unwrap())).to_string(), "u7");
}

#[tokio::test]
async fn subjects_and_endpoints_are_counted_apart() {
    let limits = Limits::Memory(MemoryLimits::new(Clock::manual(UnixMs(0))));
    let (one, other) = (Subject::of_address([192, 0, 2, 1].into()), Subject::of_address([192, 0, 2, 2].into()));
    assert!(limits.take(one, "urls", rule(1, 60)).await.allowed);
    assert!(!limits.take(one, "urls", rule(1, 60)).await.allowed);
    assert!(limits.take(one, "qr", rule(1, 60)).await.allowed);
    assert!(limits.take(other, "urls", rule(1, 60)).await.allowed);
}

#[tokio::test]
async fn neighbours_share_the_limits_of_their_networks() {
    let limits = Limits::Memory(MemoryLimits::new(Clock::manual(UnixMs(0))));
    let passed = async |addresses: Vec<String>| {
        let mut passed = 0;
        for address in addresses {
            let decision = limits.take_nested(address.parse().unwrap(), "login", rule(2, 60)).await;
            passed += u32::from(decision.allowed);
            assert_eq!(decision.allowed, decision.retry_after_s == 0);
        }
        passed
    };
    let all_of = |make: fn(u32) -> String| (0..1_024).map(make).collect::<Vec<_>>();
    for (network, expected, addresses) in [
        ("one /64", 2, all_of(|n| format!("2001:db8:0:0::{n:x}"))),
        ("one /56", 2 * 4, all_of(|n| format!("2001:db8:1:{:x}::1", n % 256))),
        ("one /48", 2 * 16, all_of(|n| format!("2001:db8:2:{:x}::1", n << 6))),
        ("one /32", 2 * 256, all_of(|n| format!("2001:db9:{n:x}::1"))),
        ("one IPv4 address", 2, all_of(|_| "192.0.2.1".to_owned())),
        ("one IPv4 /24", 2 * 16, all_of(|n| format!("198.51.100.{}", n % 256))),
        ("one IPv4 /16", 2 * 64, all_of(|n| format!("203.1.{}.{}", n % 256, n / 256))),
    ] {
        assert_eq!(passed(addresses).await, expected, "{network}");
    }
    // The next network has a limit of its own.
    assert_eq!(passed(vec!["2001:db8:1:100::1".to_owned(), "198.51.101.1".to_owned()]).await, 2);
}

#[tokio::test]
async fn what_is_given_back_may_be_taken_again() {
    let limits = Limits::Memory(MemoryLimits::new(Clock::manual(UnixMs(0))));
    let (address, rule) = (Subject::of_address([192, 0, 2, 1].into()), rule(2, 60));
    for _ in 0..10 {
        assert!(limits.take(address, "login", rule).await.allowed);
        limits.give_back(address, "login", rule).await;
    }
    for allowed in [true, true, false] {
        assert_eq!(limits.take(address, "login", rule).await.allowed, allowed);
    }
}

#[test]
fn setting_the_clock_opens_no_window_but_time_does() {
    let clock = Clock::manual(UnixMs(1_000_000));
    let limits = MemoryLimits::new(clock.clone());
    let subject = Subject::of_address([192, 0, 2, 1].into());
    assert!(limits.take(subject, "urls", rule(1, 60)).allowed);
    clock.jump_to(UnixMs(100_000_000));
    assert!(!limits.take(subject, "urls", rule(1, 60)).allowed);
    clock.advance(Duration::from_mins(2));
    assert!(limits.take(subject, "urls", rule(1, 60)).allowed);
}

#[test]
fn of_many_requests_at_once_exactly_as_many_pass_as_the_rule_says() {
    let limits = MemoryLimits::new(Clock::manual(UnixMs(0)));
    let subject = Subject::of_address([192, 0, 2, 1].into());
    let take_many = || (0..500).filter(|_| limits.take(subject, "urls", rule(1_000, 60)).allowed).count();
    let passed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take_many)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 1_000);
}

#[test]
fn the_table_is_bounded_whoever_asks() {
    let limits = MemoryLimits::new(Clock::manual(UnixMs(0)));
    for n in 0..u32::try_from(memory::COUNTERS_MAX).unwrap() * 2 {
        limits.take(Subject::of_address(std::net::Ipv4Addr::from(n).into()), "urls", rule(1, 60));
    }
    assert!(limits.len() <= memory::COUNTERS_MAX);
}

#[test]
fn who_asks_for_many_unknown_codes_is_slowed_for_a_while_and_others_are_not() {
    let clock = Clock::manual(UnixMs(0));
    let unknown = UnknownCodes::new(clock.clone()).unwrap();
    let (prober, other) = (Subject::of_address([192, 0, 2, 1].into()), Subject::of_address([192, 0, 2, 2].into()));
    for _ in 0..UNKNOWN_CODES_MAX {
        assert_eq!(unknown.check(prober), Ok(()));
        unknown.count(prober);
    }
    let retry_after_s = unknown.check(prober).unwrap_err();
    assert!((60..=62).contains(&retry_after_s), "{retry_after_s}");
    assert_eq!(unknown.check(other), Ok(()));
    clock.advance(Duration::from_secs(retry_after_s));
    assert_eq!(unknown.check(prober), Ok(()));
}

fn rules() -> impl Strategy<Value = LimitRule> {
    (1_u32..200, 1_u64..120).prop_map(|(requests, window_s)| rule(requests, window_s))
}

proptest! {
    #[test]
    fn a_request_that_counts_as_many_passes_when_so_many_would_and_when_it_is_told_to_come_back(
        rule in rules(),
        before in prop::collection::vec((0_u64..240_000, 1_u32..40), 0..100),
        units in 1_u32..300,
        now_ms in 240_000_u64..400_000,
    ) {
        let mut before = before;
        before.sort_unstable();
        let mut counters = Counters::default();
        for (at_ms, units) in before {
            counters = decide_units(counters, rule, units, at_ms).0;
        }
        let at_once = |mut counters: Counters, now_ms: u64| {
            (0..units.min(rule.requests)).all(|_| {
                let (counted, decision) = decide(counters, rule, now_ms);
                counters = counted;
                decision.allowed
            })
        };
        let (counted, decision) = decide_units(counters, rule, units, now_ms);
        prop_assert_eq!(decision.allowed, at_once(counters, now_ms));
        if !decision.allowed {
            let at = |s: u64| decide_units(counted, rule, units, now_ms + s * 1000).1.allowed;
            prop_assert!(at(decision.retry_after_s), "it passes after Retry-After");
            prop_assert!(!at(decision.retry_after_s - 1), "and not a second sooner");
        }
    }

    #[test]
    fn no_window_sees_twice_the_limit_and_no_fixed_one_more_than_the_limit(
        rule in rules(),
        gaps_ms in prop::collection::vec(prop_oneof![Just(0), 0_u64..50, 0_u64..30_000], 1..1_500),
    ) {
        let asked = gaps_ms.iter().scan(0, |now_ms, gap_ms| { *now_ms += gap_ms; Some(*now_ms) });
        let passed = passed(rule, asked);
        let limit = rule.requests as usize;
        prop_assert!(most_in_a_window(rule, &passed) < 2 * limit);
        for window in passed.chunk_by(|a, b| a / rule.window_ms == b / rule.window_ms) {
            prop_assert!(window.len() <= limit);
        }
    }

    #[test]
    fn steady_traffic_gets_the_limit_and_at_most_one_more_in_any_window(rule in rules(), gap_ms in 1_u64..2_000, start_ms in 0_u64..200_000) {
        let asked: Vec<_> = (0..3_000).map(|n| start_ms + n * gap_ms).collect();
        let passed = passed(rule, asked.iter().copied());
        let most_asked = most_in_a_window(rule, &asked);
        let limit = rule.requests as usize;
        // The window in which the traffic began sees a burst; from the next one on it is steady.
        let began = start_ms / rule.window_ms;
        let steady = passed.iter().copied().filter(|at_ms| at_ms / rule.window_ms > began).collect::<Vec<_>>();
        prop_assert!(most_in_a_window(rule, &steady) <= limit + 1);
        if most_asked <= limit / 2 {
            prop_assert_eq!(passed.len(), asked.len(), "half the limit always passes");
        }
    }

    #[test]
    fn the_headers_keep_their_word(rule in rules(), before in prop::collection::vec(0_u64..240_000, 0..400), now_ms in 0_u64..400_000) {
        let mut before = before;
        before.sort_unstable();
        before.retain(|&at_ms| at_ms <= now_ms);
        let mut counters = Counters::default();
        for at_ms in before {
            counters = decide(counters, rule, at_ms).0;
        }
        let (mut counters, decision) = decide(counters, rule, now_ms);
        prop_assert!((1..=rule.window().as_secs()).contains(&decision.reset_s));
        prop_assert_eq!(decision.allowed, decision.retry_after_s == 0);
        prop_assert!(decision.remaining < rule.requests);
        for _ in 0..decision.remaining {
            let (counted, next) = decide(counters, rule, now_ms);
            prop_assert!(next.allowed, "what is said to remain passes");
            counters = counted;
        }
        prop_assert!(!decide(counters, rule, now_ms).1.allowed, "and no more");
        if !decision.allowed {
            let at = |s: u64| decide(counters, rule, now_ms + s * 1000).1.allowed;
            prop_assert!(at(decision.retry_after_s), "one passes after Retry-After");
            prop_assert!(!at(decision.retry_after_s - 1), "and none a second sooner");
        }
    }
}
