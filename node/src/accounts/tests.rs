//! The use cases on the real embedded store, with real bcrypt at its lowest cost.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Registry;
use tempfile::TempDir;

use super::password_pool::PasswordPoolMetrics;
use super::refresh::{GRACE, SESSION_MAX};
use super::secret_key::SecretKey;
use super::*;
use crate::kv::embedded::Embedded;
use crate::kv::prefix_range;
use crate::store::format::Format;

const START: UnixMs = UnixMs(1_769_851_800_000);
const REFRESH_LIFETIME: Duration = Duration::from_hours(24 * 30);
const PASSWORD: &str = "correct horse";
/// Where everybody is unless told otherwise.
const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

struct World {
    accounts: Arc<Accounts>,
    kv: Kv,
    clock: Clock,
    passwords: PasswordPool,
    _dir: TempDir,
}

fn world() -> World {
    let ids = AtomicU64::new(1);
    world_minting(Box::new(move || ids.fetch_add(1, Ordering::Relaxed).try_into().ok()))
}

fn newest() -> Formats {
    let formats = Formats::up_to(Format::NEWEST);
    formats.see(Format::NEWEST).unwrap();
    formats
}

fn world_minting(mint_id: MintId) -> World {
    let dir = TempDir::new().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(dir.path(), clock.clone()).unwrap());
    let metrics = PasswordPoolMetrics::register(&Registry::new()).unwrap();
    let passwords = PasswordPool::start(NonZeroUsize::MIN, 4, Clock::system(), metrics).unwrap();
    let secret = SecretKey::new((0..32).collect::<Vec<u8>>().into()).unwrap();
    let tokens = AccessTokens::new("http://localhost:8000".to_owned(), Duration::from_mins(30), &secret, None);
    let accounts = Accounts::new(AccountsParts {
        kv: kv.clone(),
        clock: clock.clone(),
        mint_id,
        passwords: passwords.clone(),
        tokens,
        refresh_lifetime: REFRESH_LIFETIME,
        hosts: vec!["sho.rt".to_owned()],
        formats: newest(),
        network_tags: NetworkTags::new(&secret, None),
        guesses: GuessLimits::new(clock.clone(), None),
        guesses_slowed: IntCounter::new("slowed", "Slowed").unwrap(),
    });
    World { accounts: Arc::new(accounts), kv, clock, passwords, _dir: dir }
}

fn password(raw: &str) -> Password {
    raw.to_owned().into()
}

impl World {
    async fn registered(&self, email: &str) -> User {
        self.accounts.register(email, password(PASSWORD), None, HOME).await.unwrap()
    }

    async fn signed_in(&self, email: &str) -> TokenPair {
        self.accounts.login(email, password(PASSWORD), HOME).await.unwrap()
    }

    async fn refresh(&self, pair: &TokenPair) -> Result<TokenPair, AccountError> {
        self.accounts.refresh(pair.refresh_token.expose()).await
    }

    async fn rows(&self, range: Range<Vec<u8>>) -> Vec<crate::kv::Row> {
        self.kv.snapshot().await.unwrap().scan(range, 1000).await.unwrap()
    }
}

fn refused(answer: &Result<TokenPair, AccountError>) -> bool {
    matches!(answer, Err(AccountError::RefreshToken))
}

#[tokio::test]
async fn who_registers_can_sign_in_and_see_itself() {
    let world = world();
    let user =
        world.accounts.register("Some.One@Example.com", password(PASSWORD), Some("  Some One "), HOME).await.unwrap();
    assert_eq!((user.email.as_str(), user.full_name.as_deref()), ("Some.One@Example.com", Some("Some One")));
    assert_eq!(user.created_at, START);
    let pair = world.signed_in("some.one@EXAMPLE.com").await;
    assert_eq!(pair.expires_in, Duration::from_mins(30));
    let id = world.accounts.verify_access(pair.access_token.expose()).unwrap();
    assert_eq!((id, world.accounts.me(id).await.unwrap()), (user.id, user));
}

#[tokio::test]
async fn bad_registrations_name_what_is_wrong_and_leave_nothing() {
    let world = world();
    let name = "x".repeat(FULL_NAME_CHARS_MAX + 1);
    let cases: [(&str, &str, Option<&str>, &str); 11] = [
        ("no address", PASSWORD, None, "written as name@example.com"),
        ("a@example.com", "short", None, "at least 8 characters"),
        ("a@example.com", &"x".repeat(257), None, "at most 256 bytes"),
        ("a@example.com", "PassWord1", None, "choose another"),
        ("a@example.com", "shortener2026", None, "choose another"),
        ("ada.lovelace@example.com", "Ada.Lovelace1!", None, "choose another"),
        ("ada.lovelace@example.com", "ada.lovelace@EXAMPLE.com", None, "choose another"),
        ("a@example.com", "sho.rt2026", None, "choose another"),
        ("a@example.com", "        ", None, "choose another"),
        ("a@example.com", PASSWORD, Some(&name), "at most 200 characters"),
        ("a@example.com", PASSWORD, Some("a\0b"), "control character"),
    ];
    for (email, raw, name, said) in cases {
        let error = world.accounts.register(email, password(raw), name, HOME).await.unwrap_err();
        assert!(error.to_string().contains(said), "{email} {raw}: {error}");
    }
    assert!(world.rows(prefix_range(Vec::new())).await.is_empty());
}

#[tokio::test]
async fn without_ids_nobody_is_registered() {
    let world = world_minting(Box::new(|| None));
    let answer = world.accounts.register("a@example.com", password(PASSWORD), None, HOME).await;
    assert!(matches!(answer, Err(AccountError::NoIds)));
    assert!(world.rows(prefix_range(Vec::new())).await.is_empty());
}

#[tokio::test]
async fn an_address_is_taken_in_every_spelling() {
    let world = world();
    world.registered("someone@münchen.example").await;
    for email in ["someone@münchen.example", "SOMEONE@MÜNCHEN.example", " someone@xn--mnchen-3ya.EXAMPLE "] {
        let answer = world.accounts.register(email, password("another password"), None, HOME).await;
        assert!(matches!(answer, Err(AccountError::EmailTaken)), "{email}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_register_one_address_at_once_one_wins() {
    let world = world();
    let tasks = (0..8).map(|n| {
        let accounts = Arc::clone(&world.accounts);
        tokio::spawn(async move {
            accounts.register("same@example.com", password(&format!("pass phrase no. {n}")), None, HOME).await
        })
    });
    let answers: Vec<_> = futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).map(|(n, _)| n).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Err(AccountError::EmailTaken))).count(), 7);
    for n in 0..8 {
        let fits =
            world.accounts.login("same@example.com", password(&format!("pass phrase no. {n}")), HOME).await.is_ok();
        assert_eq!(fits, winners.contains(&n), "the winner's password, and only that, signs in");
    }
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_get_the_same_answer_for_the_same_work() {
    let world = world();
    world.registered("someone@example.com").await;
    let cases = [
        ("someone@example.com", "wrong password"),
        ("someone@example.com", ""),
        ("nobody@example.com", PASSWORD),
        ("no address", PASSWORD),
        ("", ""),
    ];
    for (email, raw) in cases {
        let before = world.passwords.verified_total();
        let error = world.accounts.login(email, password(raw), HOME).await.unwrap_err();
        assert!(matches!(error, AccountError::Credentials), "{email:?}: {error}");
        assert_eq!(world.passwords.verified_total(), before + 1, "{email:?}: bcrypt ran once");
    }
}

#[tokio::test]
async fn a_refresh_token_gives_the_next_pair_once() {
    let world = world();
    let user = world.registered("someone@example.com").await;
    let mut pair = world.signed_in("someone@example.com").await;
    for _ in 0..3 {
        let next = world.refresh(&pair).await.unwrap();
        assert_ne!(next.refresh_token.expose(), pair.refresh_token.expose());
        assert_ne!(next.access_token, pair.access_token);
        assert_eq!(world.accounts.verify_access(next.access_token.expose()), Ok(user.id));
        pair = next;
    }
}

#[tokio::test]
async fn a_spent_token_presented_again_revokes_its_family_and_no_other() {
    let world = world();
    world.registered("someone@example.com").await;
    let other_device = world.signed_in("someone@example.com").await;
    let first = world.signed_in("someone@example.com").await;
    let second = world.refresh(&first).await.unwrap();
    let third = world.refresh(&second).await.unwrap();
    assert!(refused(&world.refresh(&first).await));
    for pair in [&third, &second, &first] {
        assert!(refused(&world.refresh(pair).await));
    }
    assert!(world.refresh(&other_device).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_refreshes_of_one_token_at_once_all_get_the_same_successor() {
    let world = world();
    let user = world.registered("someone@example.com").await;
    for (round, at_once) in [2, 2, 2, 2, 100].into_iter().enumerate() {
        let pair = world.signed_in("someone@example.com").await;
        let tasks = (0..at_once).map(|_| {
            let (accounts, token) = (Arc::clone(&world.accounts), pair.refresh_token.clone());
            tokio::spawn(async move { accounts.refresh(token.expose()).await })
        });
        let answers: Vec<_> =
            futures::future::join_all(tasks).await.into_iter().map(|task| task.unwrap().unwrap()).collect();
        let successors: std::collections::BTreeSet<_> =
            answers.iter().map(|pair| pair.refresh_token.expose()).collect();
        assert_eq!(successors.len(), 1, "round {round}");
        for pair in &answers {
            assert_eq!(world.accounts.verify_access(pair.access_token.expose()), Ok(user.id));
        }
        assert!(world.refresh(&answers[0]).await.is_ok(), "round {round}: the family goes on");
    }
}

#[tokio::test]
async fn a_spent_token_gives_its_successor_again_for_a_while_and_only_until_that_is_used() {
    let world = world();
    world.registered("someone@example.com").await;
    let a_moment = Duration::from_millis(1);
    // The last moment at which an answer that was lost can be had again, and the first at which it cannot.
    for (late, is_given) in [(Duration::ZERO, true), (GRACE.checked_sub(a_moment).unwrap(), true), (GRACE, false)] {
        let first = world.signed_in("someone@example.com").await;
        let second = world.refresh(&first).await.unwrap();
        world.clock.advance(late);
        let again = world.refresh(&first).await;
        match is_given {
            true => assert_eq!(again.unwrap().refresh_token.expose(), second.refresh_token.expose(), "{late:?}"),
            false => assert!(refused(&again), "{late:?}"),
        }
        assert_eq!(
            world.refresh(&second).await.is_ok(),
            is_given,
            "{late:?}: a replay ends the family, a repetition does not"
        );
    }
    // As soon as the successor is used, its predecessor is a replay.
    let first = world.signed_in("someone@example.com").await;
    let second = world.refresh(&first).await.unwrap();
    let third = world.refresh(&second).await.unwrap();
    assert!(refused(&world.refresh(&first).await));
    assert!(refused(&world.refresh(&third).await), "the family is revoked");
    // Giving it again does not make it live longer, nor a session that has ended begin anew.
    let first = world.signed_in("someone@example.com").await;
    world.refresh(&first).await.unwrap();
    world.accounts.logout(first.refresh_token.expose()).await.unwrap();
    assert!(refused(&world.refresh(&first).await), "signed out");
}

#[tokio::test]
async fn a_successor_follows_from_the_spent_token_and_the_salt_together_alone() {
    let (one, other) = (RefreshToken::random(), RefreshToken::random());
    let successor = one.successor(&[1; 16]);
    assert_eq!(successor.expose(), one.successor(&[1; 16]).expose());
    for another in [one.successor(&[2; 16]), other.successor(&[1; 16]), one.clone()] {
        assert_ne!(successor.expose(), another.expose());
    }
    assert!(RefreshToken::parse(successor.expose()).is_some(), "it is a token like any other");
}

#[tokio::test]
async fn a_clock_that_is_behind_gives_the_same_successor() {
    let world = world();
    world.registered("someone@example.com").await;
    let first = world.signed_in("someone@example.com").await;
    let second = world.refresh(&first).await.unwrap();
    world.clock.jump_to(START.minus(Duration::from_mins(5)));
    assert_eq!(world.refresh(&first).await.unwrap().refresh_token.expose(), second.refresh_token.expose());
}

#[tokio::test]
async fn a_sign_out_ends_its_own_family_and_can_be_repeated() {
    let world = world();
    world.registered("someone@example.com").await;
    let other_device = world.signed_in("someone@example.com").await;
    let pair = world.signed_in("someone@example.com").await;
    for _ in 0..2 {
        world.accounts.logout(pair.refresh_token.expose()).await.unwrap();
        assert!(refused(&world.refresh(&pair).await));
    }
    for garbage in ["", "x", "a.b.c", &"A".repeat(43), &"é".repeat(43), &"A".repeat(100_000)] {
        world.accounts.logout(garbage).await.unwrap();
        assert!(refused(&world.accounts.refresh(garbage).await), "{}", garbage.len());
    }
    assert!(refused(&world.accounts.refresh(pair.access_token.expose()).await), "an access token refreshes nothing");
    assert!(world.refresh(&other_device).await.is_ok());
}

#[tokio::test]
async fn a_sign_out_with_a_spent_token_ends_the_family_too() {
    let world = world();
    world.registered("someone@example.com").await;
    let first = world.signed_in("someone@example.com").await;
    let second = world.refresh(&first).await.unwrap();
    world.accounts.logout(first.refresh_token.expose()).await.unwrap();
    assert!(refused(&world.refresh(&second).await));
}

#[tokio::test]
async fn a_refresh_token_expires_unless_it_is_used_and_its_rows_may_go_then_and_not_before() {
    let world = world();
    world.registered("someone@example.com").await;
    let first = world.signed_in("someone@example.com").await;
    let a_second = Duration::from_secs(1);
    let almost = REFRESH_LIFETIME.checked_sub(a_second).unwrap();
    world.clock.advance(almost);
    let second = world.refresh(&first).await.unwrap();

    let expired = async || {
        let mut expired = Vec::new();
        for prefix in rows::expiring_prefixes() {
            for (key, value) in world.rows(prefix_range(prefix)).await {
                expired.push(rows::has_expired(&key, &value, world.clock.now()).unwrap());
            }
        }
        expired.iter().filter(|&&expired| expired).count()..expired.len()
    };
    assert_eq!(expired().await, 0..4, "two tokens, their family, the network");
    world.clock.advance(a_second);
    assert_eq!(expired().await, 1..4, "the first token");
    world.clock.advance(almost);
    assert_eq!(expired().await, 3..4, "all but the network");
    world.clock.advance(KNOWN_FOR);
    assert_eq!(expired().await, 4..4, "all of them");
    assert!(refused(&world.refresh(&second).await));
}

#[tokio::test]
async fn a_session_ends_however_often_it_is_refreshed() {
    let world = world();
    world.registered("someone@example.com").await;
    let mut pair = world.signed_in("someone@example.com").await;
    let step = Duration::from_hours(24 * 20);
    let steps = SESSION_MAX.as_secs().div_ceil(step.as_secs());
    for number in 1..steps {
        world.clock.advance(step);
        pair = world.refresh(&pair).await.unwrap_or_else(|error| panic!("step {number}: {error}"));
    }
    world.clock.advance(step);
    assert!(refused(&world.refresh(&pair).await));
    assert!(world.accounts.login("someone@example.com", password(PASSWORD), HOME).await.is_ok());
}

#[tokio::test]
async fn a_user_and_an_address_never_expire() {
    let world = world();
    world.registered("someone@example.com").await;
    let is_network = |key: &[u8]| rows::expiring_prefixes().iter().any(|prefix| key.starts_with(prefix));
    let rows_of_all = world.rows(prefix_range(Vec::new())).await;
    assert_eq!(rows_of_all.len(), 3, "a user, its address, its network");
    for (key, value) in rows_of_all.into_iter().filter(|(key, _)| !is_network(key)) {
        assert!(!rows::has_expired(&key, &value, UnixMs(u64::MAX)).unwrap());
    }
}

#[tokio::test]
async fn neither_a_password_nor_a_token_is_in_the_store() {
    let world = world();
    world.registered("someone@example.com").await;
    let first = world.signed_in("someone@example.com").await;
    let second = world.refresh(&first).await.unwrap();
    let stored = world.rows(prefix_range(Vec::new())).await;
    assert_eq!(stored.len(), 6, "a user, its address, its network, two refresh tokens, their family");
    let first_bits =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, first.refresh_token.expose());
    let secrets = [
        PASSWORD.as_bytes(),
        first.refresh_token.expose().as_bytes(),
        &first_bits.unwrap(),
        second.refresh_token.expose().as_bytes(),
        first.access_token.expose().as_bytes(),
    ];
    let stored = stored.into_iter().flat_map(|(key, value)| [key, value]).collect::<Vec<_>>();
    for secret in secrets {
        assert!(!stored.iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret)));
    }
}

#[tokio::test]
async fn guesses_from_many_addresses_are_slowed_in_the_same_way_with_an_account_and_without_and_the_owner_gets_in() {
    let world = world();
    world.registered("owner@example.com").await;
    let guess = async |email: &str, n: u8| {
        let from = IpAddr::from([198, 51, 100, n]);
        world.accounts.login(email, password("a wrong guess"), from).await.unwrap_err()
    };
    let mut became = Vec::new();
    for email in ["owner@example.com", "nobody@example.com", "no address"] {
        let mut slowed = Vec::new();
        for n in 0..120 {
            match guess(email, n).await {
                AccountError::TooManyGuesses(wait) => slowed.push((n, wait)),
                AccountError::Credentials => {}
                other => panic!("{email}: {other}"),
            }
        }
        became.push(slowed);
    }
    assert_eq!(became[0].len(), 109, "eleven of 120 are looked at");
    assert!(became.windows(2).all(|pair| pair[0] == pair[1]), "existence is not told");
    assert_eq!(world.accounts.parts.guesses_slowed.get(), 3 * 109);
    // The owner is at the network that she registered from, whatever strangers do.
    world.signed_in("owner@example.com").await;
    // Elsewhere she has to wait as everybody, but not for long, and then she is known there too.
    let elsewhere = IpAddr::from([203, 0, 113, 7]);
    let sign_in = async || world.accounts.login("owner@example.com", password(PASSWORD), elsewhere).await;
    let Err(AccountError::TooManyGuesses(wait)) = sign_in().await else { panic!("she is slowed") };
    assert!(wait <= crate::limits::guesses::PACE_MAX);
    world.clock.advance(wait);
    sign_in().await.unwrap();
    for n in 0..120 {
        guess("owner@example.com", n).await;
        sign_in().await.unwrap();
    }
}

#[tokio::test]
async fn a_network_is_forgotten_that_nobody_signed_in_from_for_long() {
    let world = world();
    world.registered("owner@example.com").await;
    let slow_down = async || {
        for n in 0..120 {
            let from = IpAddr::from([198, 51, 100, n]);
            let _ = world.accounts.login("owner@example.com", password("a wrong guess"), from).await;
        }
    };
    world.clock.advance(KNOWN_FOR.checked_sub(Duration::from_secs(1)).unwrap());
    slow_down().await;
    world.signed_in("owner@example.com").await;
    // That sign-in counts anew.
    world.clock.advance(KNOWN_FOR.checked_sub(Duration::from_secs(1)).unwrap());
    slow_down().await;
    world.signed_in("owner@example.com").await;
    world.clock.advance(KNOWN_FOR);
    slow_down().await;
    let answer = world.accounts.login("owner@example.com", password(PASSWORD), HOME).await;
    assert!(matches!(answer, Err(AccountError::TooManyGuesses(_))), "{answer:?}");
}
