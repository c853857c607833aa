//! The bytes of one row of every kind, as its latest version writes them: what a release has written, every later one reads.

use shortener_crds::ids::claim::WorkerRow;
use shortener_crds::ids::{Block, BootId, CodeLength, SnowflakeId, WorkerId};

use super::accounts::{
    KnownNetworkRow, RefreshFamilyRow, UserId, UserRow, insert_user, put_current_token, put_known_network,
};
use super::allocation::{insert_claim, put_high_water_mark, put_worker_row};
use super::clicks::{
    Click, ClickId, CountingRow, Counts, Day, DayRow, Hour, HourRow, click_key, day_key, hour_key, salt_or_insert,
    total_key,
};
use super::domains::{HostRow, put_host};
use super::format::Format;
use super::idempotency::{IdempotencyRow, former_hashes, remember_answer};
use super::invalidations::{InvalidationRow, invalidation_key};
use super::keyspace::{KeyspaceRow, keyspace_or_insert, put_place};
use super::links::{LinkAddress, LinkRow, insert_link};
use super::search::{Head, Segment, insert_segment, put_head};
use super::takedowns::{Takedown, put_takedown};
use super::{KINDS, StoreError};
use crate::ambient::{Clock, UnixMs};
use crate::kv::embedded::Embedded;
use crate::kv::{Kv, Place, Transaction, prefix_range};

const NOON: UnixMs = UnixMs(1_790_000_000_000);

fn user() -> UserId {
    UserId(SnowflakeId::try_from(300).unwrap())
}

fn click(bot: bool) -> Click {
    Click {
        at: NOON,
        domain: "go.example".to_owned(),
        code: "q3XfZ0a".to_owned(),
        referrer: "news.example".to_owned(),
        browser: "Firefox".to_owned(),
        operating_system: "Linux".to_owned(),
        device: "desktop".to_owned(),
        country: "IS".to_owned(),
        bot,
        visitor: 0x0123_4567_89ab_cdef,
    }
}

fn counted<R: CountingRow>() -> Vec<u8> {
    let mut row = R::default();
    row.add(&click(false));
    row.add(&click(true));
    row.encode()
}

fn write_ids(txn: &mut Transaction) {
    let block = Block::new(CodeLength::DEFAULT, 258).unwrap();
    let boot = BootId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    insert_claim(txn, block, boot);
    put_high_water_mark(txn, CodeLength::DEFAULT, 259);
    put_worker_row(txn, WorkerId::try_from(513).unwrap(), WorkerRow { boot, end_ms: NOON.0 });
    put_place(txn, Place { inode: 300, created_ns: 5 });
}

fn write_link(txn: &mut Transaction) {
    let at = LinkAddress { domain: "go.example".to_owned(), code: "q3XfZ0a".to_owned() };
    let link = LinkRow {
        id: 7,
        owner: Some(user()),
        target: "https://example.com/".to_owned(),
        status: 302,
        title: None,
        tags: vec!["a".to_owned()],
        is_active: true,
        expires_at: Some(NOON),
        created_at: UnixMs(1),
        updated_at: UnixMs(2),
        version: 3,
        is_alias: false,
        is_deleted: false,
    };
    insert_link(txn, Format::NEWEST, &at, &link);
    txn.put(invalidation_key(&at), InvalidationRow { version: 3, changed_at: NOON }.encode());
    let takedown = Takedown::Code(at.clone());
    let answer = IdempotencyRow { request: [9; 32], at, link, expires_at: NOON };
    remember_answer(txn, former_hashes("user 300", "key", b"").0, &answer);
    put_takedown(txn, &takedown, NOON);
    put_head(txn, user(), Head::DownTo(300));
    insert_segment(txn, user(), 6, &Segment { links: vec![7, 300, u64::MAX], filter: vec![1, 0x80] });
    let host = HostRow { domain: "go.example".to_owned(), registered_at: UnixMs(1), base_since: Some(NOON) };
    put_host(txn, "sho.rt", &host);
}

fn write_account(txn: &mut Transaction) {
    let row = UserRow {
        email: "Ada@example.com".to_owned(),
        full_name: Some("Ada".to_owned()),
        password_hash: "$2b$12$".to_owned(),
        created_at: NOON,
    };
    insert_user(txn, user(), "ada@example.com", &row);
    let family = RefreshFamilyRow {
        user: user(),
        current: [2; 32],
        expires_at: NOON,
        began_at: UnixMs(1),
        current_since: UnixMs(2),
        salt: [5; 16],
    };
    put_current_token(txn, Format::NEWEST, [1; 16], &family);
    put_known_network(txn, user(), &[6; 16], KnownNetworkRow { until: NOON });
}

fn write_clicks(txn: &mut Transaction) {
    let (click, day, hour) = (click(false), Day::of(NOON), Hour::of(NOON));
    let (domain, code) = (click.domain.as_str(), click.code.as_str());
    txn.put(click_key(ClickId { boot_id: 0x1234, counter: 6 }, NOON), click.encode());
    txn.put(total_key(domain, code, 513), counted::<Counts>());
    txn.put(day_key(domain, code, day, 513), counted::<DayRow>());
    txn.put(hour_key(domain, code, hour, 513), counted::<HourRow>());
}

#[tokio::test]
async fn one_row_of_every_kind_has_the_bytes_that_its_version_writes() {
    let directory = tempfile::tempdir().unwrap();
    let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(NOON)).unwrap());
    keyspace_or_insert(&kv, &KeyspaceRow { identity: 300, permutation_key: [3; 32], format: Format::NEWEST })
        .await
        .unwrap();
    salt_or_insert(&kv, Day::of(NOON), [4; 32]).await.unwrap();
    let written = kv.transact(async |mut txn| {
        write_ids(&mut txn);
        write_link(&mut txn);
        write_account(&mut txn);
        write_clicks(&mut txn);
        Ok::<_, StoreError>((txn, ()))
    });
    written.await.unwrap();
    let rows = kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 100).await.unwrap();
    let mut kinds: Vec<u8> = rows.iter().filter_map(|(key, _)| key.first().copied()).collect();
    // A search index has rows of two forms.
    kinds.dedup();
    let all: Vec<u8> = KINDS.iter().map(|(kind, _)| *kind as u8).collect();
    assert_eq!(kinds, all, "rows of each kind");
    let hex = |bytes: &[u8]| hex::encode(bytes);
    let text: Vec<_> =
        rows.iter().map(|(key, value)| format!("{} {}\n    {}", key[0] as char, hex(&key[1..]), hex(value))).collect();
    insta::assert_snapshot!(text.join("\n"));
}
