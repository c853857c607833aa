//! The permutation is a bijection, and what it makes of neighbours looks like chance.
//!
//! Keys are fixed, so that a statistic that passes once passes always; the bounds are five standard deviations, which a good
//! permutation fails for one key in a million.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::thread;

use proptest::prelude::*;
use shortener_crds::ids::permutation::Permutation;
use shortener_crds::ids::{CodeLength, CodePermutation, IdPermutation, PermutationKey};

const SIGMAS: f64 = 5.0;

fn key(seed: u8) -> PermutationKey {
    PermutationKey::new(std::array::from_fn(|place| seed.wrapping_mul(31).wrapping_add(u8::try_from(place).unwrap())))
}

/// Every number of the domain is hit once, and goes back where it came from.
fn check_whole_domain(seed: u8, domain: u64) {
    let permutation = Permutation::new(&key(seed), domain);
    let mut hit = vec![false; usize::try_from(domain).unwrap()];
    for plain in 0..domain {
        let permuted = permutation.encrypt(plain).expect("inside the domain");
        assert_eq!(permutation.decrypt(permuted), Some(plain), "domain {domain}");
        let place = &mut hit[usize::try_from(permuted).unwrap()];
        assert!(!std::mem::replace(place, true), "{permuted} is hit twice in domain {domain}");
    }
    assert!(hit.iter().all(|hit| *hit), "domain {domain}");
}

#[test]
fn whole_small_domains_are_permuted() {
    for domain in 0..300 {
        check_whole_domain(1, domain);
    }
    // Squares and their neighbours, where the base changes; powers of 62, as codes have.
    for domain in [62 * 62, 65_535, 65_536, 65_537, 99_999, 62 * 62 * 62] {
        for seed in 0..3 {
            check_whole_domain(seed, domain);
        }
    }
}

#[test]
fn ten_million_codes_of_seven_digits_differ_and_go_back() {
    let samples = 10_000_000_u64;
    let domain = CodeLength::DEFAULT.codes();
    let permutation = Permutation::new(&key(7), domain);
    // Half are neighbours from the start, as nodes mint them; half are spread over the whole domain.
    let stride = domain / samples;
    let plains: Vec<_> = (0..samples / 2).chain((samples / 2..samples).map(|sample| sample * stride)).collect();
    let permute = |plains: &[u64]| -> Vec<u64> {
        let there_and_back = |plain: &u64| {
            let permuted = permutation.encrypt(*plain).expect("inside the domain");
            assert_eq!(permutation.decrypt(permuted), Some(*plain));
            permuted
        };
        plains.iter().map(there_and_back).collect()
    };
    let (first, second) = plains.split_at(plains.len() / 2);
    let mut permuted = thread::scope(|scope| {
        let first = scope.spawn(|| permute(first));
        let mut permuted = permute(second);
        permuted.extend(first.join().expect("each goes back"));
        permuted
    });
    permuted.sort_unstable();
    assert_eq!(permuted.len(), 10_000_000);
    assert!(permuted.is_sorted_by(|lower, higher| lower < higher), "two code IDs have one code");
    assert!(permuted.last().is_some_and(|last| *last < domain));
}

proptest! {
    #[test]
    fn any_code_id_of_any_length_goes_there_and_back(seed: u8, digits in 6_u8..=10, fraction in 0.0..1.0_f64) {
        let length = CodeLength::try_from(digits).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any number will do")]
        let code_id = (length.codes() as f64 * fraction) as u64;
        let permutation = CodePermutation::new(&key(seed), length);
        let code = permutation.code(code_id).expect("inside the domain");
        prop_assert_eq!(code.as_str().len(), usize::from(digits));
        prop_assert_eq!(permutation.code_id(code), Some(code_id));
    }

    #[test]
    fn any_domain_is_permuted_within_itself(seed: u8, domain in 1_u64.., plain: u64) {
        let permutation = Permutation::new(&key(seed), domain);
        let permuted = permutation.encrypt(plain % domain).expect("inside the domain");
        prop_assert!(permuted < domain);
        prop_assert_eq!(permutation.decrypt(permuted), Some(plain % domain));
    }
}

/// The digits of the codes of consecutive code IDs.
fn digits_of_neighbours(count: u64) -> Vec<Vec<u8>> {
    let permutation = CodePermutation::new(&key(3), CodeLength::DEFAULT);
    let digits = |code_id| permutation.code(code_id).expect("inside the domain").as_str().as_bytes().to_vec();
    (0..count).map(digits).collect()
}

/// Whether `observed` successes of `trials` are what a chance of `probability` makes of them.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn assert_chance(what: &str, observed: usize, trials: usize, probability: f64) {
    let expected = trials as f64 * probability;
    let deviation = (expected * (1.0 - probability)).sqrt();
    let sigmas = (observed as f64 - expected) / deviation;
    assert!(
        sigmas.abs() < SIGMAS,
        "{what}: {observed} where chance gives {expected:.0} ({sigmas:.1} standard deviations)"
    );
}

/// Pearson's chi-squared test: whether the counts of equally likely outcomes are what chance makes of them.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn assert_uniform(what: &str, counts: &[usize]) {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    assert!(expected >= 5.0, "{what}: too few samples for the test to hold");
    let chi_squared: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    // With this many degrees of freedom the statistic is nearly normal: mean f, variance 2f.
    let freedom = (counts.len() - 1) as f64;
    let sigmas = (chi_squared - freedom) / (2.0 * freedom).sqrt();
    assert!(
        sigmas.abs() < SIGMAS,
        "{what}: chi-squared {chi_squared:.0} at {freedom} ({sigmas:.1} standard deviations)"
    );
}

fn digit_index(digit: u8) -> usize {
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".iter().position(|known| *known == digit).unwrap()
}

#[test]
fn adjacent_code_ids_share_prefixes_and_suffixes_no_more_often_than_chance() {
    let codes = digits_of_neighbours(2_000_000);
    let mut probability = 1.0;
    for shared in 1..=3 {
        probability /= 62.0;
        for distance in [1, 2, 62, 65_536] {
            let pairs = || codes.iter().zip(&codes[distance..]);
            let prefixes = pairs().filter(|(one, other)| one[..shared] == other[..shared]).count();
            assert_chance(
                &format!("{shared} first digits, distance {distance}"),
                prefixes,
                pairs().count(),
                probability,
            );
            let suffixes = pairs().filter(|(one, other)| one[7 - shared..] == other[7 - shared..]).count();
            assert_chance(
                &format!("{shared} last digits, distance {distance}"),
                suffixes,
                pairs().count(),
                probability,
            );
        }
    }
}

#[test]
fn each_digit_and_each_step_between_neighbours_is_uniform() {
    let codes = digits_of_neighbours(1_000_000);
    for place in 0..7 {
        let mut counts = [0; 62];
        let mut pairs = vec![0; 62 * 62];
        for (code, next) in codes.iter().zip(&codes[1..]) {
            counts[digit_index(code[place])] += 1;
            pairs[digit_index(code[place]) * 62 + digit_index(next[place])] += 1;
        }
        assert_uniform(&format!("digit {place}"), &counts);
        assert_uniform(&format!("digit {place} and the same of the next code"), &pairs);
    }
}

#[test]
fn codes_of_one_key_tell_nothing_of_another_key_or_length() {
    let length = CodeLength::DEFAULT;
    let (one, other) = (CodePermutation::new(&key(1), length), CodePermutation::new(&key(2), length));
    let same_first =
        (0..100_000).filter(|id| one.code(*id).unwrap().as_str()[..1] == other.code(*id).unwrap().as_str()[..1]);
    assert_chance("first digit under two keys", same_first.count(), 100_000, 1.0 / 62.0);
    let longer = CodePermutation::new(&key(1), CodeLength::try_from(8).unwrap());
    let same_first =
        (0..100_000).filter(|id| one.code(*id).unwrap().as_str()[..1] == longer.code(*id).unwrap().as_str()[..1]);
    assert_chance("first digit at two lengths", same_first.count(), 100_000, 1.0 / 62.0);
}

proptest! {
    #[test]
    fn every_id_goes_somewhere_and_back(seed in 0_u8..8, id: u64) {
        let ids = IdPermutation::new(&key(seed));
        prop_assert_eq!(ids.decrypt(ids.encrypt(id)), id);
        prop_assert_eq!(ids.encrypt(ids.decrypt(id)), id);
    }
}

/// IDs of one worker in one second tell nothing in their permuted form: half of all bits change from one to the next, each bit is
/// set half of the time, and the order of the permuted ones is that of chance.
#[test]
fn permuted_ids_tell_neither_their_time_nor_their_neighbours() {
    let (ids, count) = (IdPermutation::new(&key(5)), 100_000_u32);
    let permuted: Vec<u64> = (0..count).map(|n| ids.encrypt((1 << 52) + (u64::from(n) << 10))).collect();
    let steps: Vec<(u64, u64)> = permuted.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let tosses = f64::from(count - 1);
    let fair = |heads: u32, tosses: f64| (f64::from(heads) - tosses / 2.0).abs() < SIGMAS * tosses.sqrt() / 2.0;
    let flipped: u32 = steps.iter().map(|(before, after)| (before ^ after).count_ones()).sum();
    assert!(fair(flipped, tosses * 64.0), "{flipped}");
    for bit in 0..64 {
        let set: u32 = steps.iter().map(|(_, id)| u32::from(id >> bit & 1 == 1)).sum();
        assert!(fair(set, tosses), "bit {bit}: {set}");
    }
    // Neighbouring steps share a number, so rises are spread less than tosses of a coin are.
    let rises: u32 = steps.iter().map(|(before, after)| u32::from(before < after)).sum();
    assert!(fair(rises, tosses), "{rises}");
    let mut sorted = permuted;
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), count as usize);
}
