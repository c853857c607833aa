use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use shortener_crds::ids::SnowflakeId;
use tempfile::TempDir;

use super::plan::{SEGMENT_LINKS, STEP_LINKS};
use super::text::Needle;
use crate::ambient::{Clock, UnixMs};
use crate::kv::Kv;
use crate::kv::embedded::Embedded;
use crate::links::list::{ListQuery, Lists};
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::format::{Format, Formats};
use crate::store::links::{LinkAddress, LinkRow, bury_link, insert_link, link_by_id, replace_link};
use crate::store::search::{each_segment_of_whole, unindexed};

/// Links that are made in one transaction.
const BATCH: usize = 1_000;

fn user(id: u64) -> UserId {
    UserId(SnowflakeId::try_from(id).unwrap())
}

fn link(owner: UserId, id: u64, path: &str, title: &str) -> (LinkAddress, LinkRow) {
    let row = LinkRow {
        id,
        owner: Some(owner),
        target: format!("https://example.com/{path}"),
        status: 302,
        title: Some(title.to_owned()),
        tags: vec![format!("Tag {}", id % 7)],
        is_active: true,
        expires_at: None,
        created_at: UnixMs(1),
        updated_at: UnixMs(1),
        version: 1,
        is_alias: false,
        is_deleted: false,
    };
    // Like a minted code: it says nothing.
    let code = format!("{:09x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 28);
    (LinkAddress { domain: String::new(), code }, row)
}

/// A store with its lists, and what should be in it.
struct World {
    _directory: TempDir,
    kv: Kv,
    lists: Lists,
    links: BTreeMap<u64, (LinkAddress, LinkRow)>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(UnixMs(1_790_000_000_000))).unwrap());
        let formats = Formats::up_to(Format::NEWEST);
        formats.see(Format::SEARCH_INDEX).unwrap();
        Self { _directory: directory, lists: Lists::new(kv.clone(), formats), kv, links: BTreeMap::new() }
    }

    async fn make(&mut self, links: Vec<(LinkAddress, LinkRow)>) {
        for batch in links.chunks(BATCH) {
            let made = self.kv.transact(async |mut txn| {
                for (at, row) in batch {
                    insert_link(&mut txn, Format::NEWEST, at, row);
                }
                Ok::<_, StoreError>((txn, ()))
            });
            made.await.unwrap();
        }
        self.links.extend(links.into_iter().map(|link| (link.1.id, link)));
    }

    async fn change(&mut self, id: u64, title: &str) {
        let row = retitle(&self.kv, id, title).await;
        self.links.get_mut(&id).unwrap().1 = row;
    }

    async fn delete(&mut self, id: u64) {
        let (at, row) = self.links.remove(&id).unwrap();
        let deleted = self.kv.transact(async |mut txn| {
            let tombstone = LinkRow { is_deleted: true, title: None, ..row.clone() };
            bury_link(&mut txn, Format::NEWEST, &at, &row, &tombstone);
            Ok::<_, StoreError>((txn, ()))
        });
        deleted.await.unwrap();
    }

    async fn index(&self, owner: UserId) {
        while !self.lists.indexer().step(owner).await.unwrap() {}
    }

    /// IDs that reading everything finds, newest first.
    fn expected(&self, owner: UserId, query: &ListQuery) -> Vec<u64> {
        let needle = Needle::new(query.contains.as_deref(), query.tag.as_deref()).unwrap();
        let found = self.links.values().rev().filter(|(at, row)| row.owner == Some(owner) && needle.matches(at, row));
        found.map(|(_, row)| row.id).collect()
    }

    /// IDs through all pages, none of which is empty while more follow.
    async fn found(&self, owner: UserId, query: &ListQuery) -> Vec<u64> {
        let (mut query, mut ids) = (query.clone(), Vec::new());
        loop {
            let (page, _) = self.lists.page(owner, &query).await.unwrap();
            assert!(page.items.len() <= query.limit);
            ids.extend(page.items.iter().map(|(_, row)| row.id));
            let Some(next) = page.next else { return ids };
            assert!(!page.items.is_empty(), "a page is empty while more follow: {query:?}");
            query.after = Some(next);
        }
    }

    async fn segments(&self, owner: UserId) -> Option<Vec<Vec<u64>>> {
        let mut segments = Vec::new();
        let snapshot = self.kv.snapshot().await.unwrap();
        let is_whole = each_segment_of_whole(&snapshot, owner, |_, segment| segments.push(segment.links));
        is_whole.await.unwrap().then_some(segments)
    }

    async fn unindexed(&self, owner: UserId) -> Vec<u64> {
        let found = unindexed(&self.kv.snapshot().await.unwrap(), owner, 10_000).await.unwrap();
        found.into_iter().map(|unindexed| unindexed.link).collect()
    }

    /// Each link is in one segment at most; one that is in none is unindexed. Answers how many are listed.
    async fn check_index(&self, owner: UserId) -> usize {
        let mut listed = self.segments(owner).await.unwrap().concat();
        let entries = listed.len();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), entries, "a link is in two segments");
        let unindexed = self.unindexed(owner).await;
        assert!(unindexed.len() < SEGMENT_LINKS);
        for (id, (_, row)) in &self.links {
            assert!(row.owner != Some(owner) || listed.binary_search(id).is_ok() || unindexed.contains(id), "{id}");
        }
        entries
    }
}

async fn retitle(kv: &Kv, id: u64, title: &str) -> LinkRow {
    let changed = kv.transact(async |mut txn| {
        let (at, before) = link_by_id(&txn, id).await?.unwrap();
        let row = LinkRow { title: Some(title.to_owned()), version: before.version + 1, ..before.clone() };
        replace_link(&mut txn, Format::NEWEST, &at, &before, &row);
        Ok::<_, StoreError>((txn, row))
    });
    changed.await.unwrap()
}

fn by_text(text: &str) -> ListQuery {
    ListQuery { limit: 20, contains: Some(text.to_owned()), ..ListQuery::default() }
}

fn by_tag(tag: &str) -> ListQuery {
    ListQuery { limit: 20, tag: Some(tag.to_owned()), ..ListQuery::default() }
}

/// Words that links are made of: some are in many, none in all.
const WORDS: [&str; 8] = ["münchen", "STRASSE", "café", "россия", "apple pie", "q", "日本語", "x-1"];

#[derive(Clone, Debug)]
enum Do {
    Make(usize),
    Change { every: u64, word: usize },
    Delete { every: u64 },
    Steps(usize),
    Index,
}

fn does() -> impl Strategy<Value = Do> {
    prop_oneof![
        (1..400_usize).prop_map(Do::Make),
        (1..40_u64, 0..WORDS.len()).prop_map(|(every, word)| Do::Change { every, word }),
        (2..9_u64).prop_map(|every| Do::Delete { every }),
        (1..4_usize).prop_map(Do::Steps),
        Just(Do::Index),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_search_by_the_index_finds_what_reading_every_link_finds(history in prop::collection::vec(does(), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut world, owner, other) = (World::new(), user(5), user(6));
            let mut made = 0_u64;
            for step in history {
                match step {
                    Do::Make(many) => {
                        let numbers = made..made + many as u64;
                        made = numbers.end;
                        // Nodes mint apart: their IDs come in no order.
                        let new = numbers.map(|number| {
                            let id = number * 7_919 % 100_003 + 1;
                            let word = |number: u64| WORDS[usize::try_from(number).unwrap() % WORDS.len()];
                            let owner = if number % 11 == 0 { other } else { owner };
                            link(owner, id, &format!("{}/{number}", word(number / 3)), word(number / 50))
                        });
                        world.make(new.collect()).await;
                    }
                    Do::Change { every, word } => {
                        let ids: Vec<u64> = world.links.keys().copied().filter(|id| id % every == 0).take(60).collect();
                        for id in ids {
                            world.change(id, WORDS[word]).await;
                        }
                    }
                    Do::Delete { every } => {
                        let ids: Vec<u64> = world.links.keys().copied().filter(|id| id % every == 1).take(60).collect();
                        for id in ids {
                            world.delete(id).await;
                        }
                    }
                    Do::Steps(steps) => {
                        for _ in 0..steps {
                            world.lists.indexer().step(owner).await.unwrap();
                        }
                    }
                    Do::Index => world.index(owner).await,
                }
            }
            let queries = WORDS.into_iter().map(by_text).chain([by_text("strasse/1"), by_text("nothing"), by_tag("Tag 3")]);
            for query in queries {
                for owner in [owner, other] {
                    assert_eq!(world.found(owner, &query).await, world.expected(owner, &query), "{query:?}");
                }
            }
        });
    }
}

#[tokio::test]
async fn the_oldest_of_a_hundred_thousand_links_is_found_in_one_request() {
    let (mut world, owner) = (World::new(), user(5));
    let target =
        |id: u64| if id == 1 { "stra%C3%9Fe/pqrp".to_owned() } else { format!("items/{id}/pqr/qrp?utm_source=x{id}") };
    world.make((1..=100_000).map(|id| link(owner, id, &target(id), "Summer sale")).collect()).await;
    world.index(owner).await;
    assert!(world.unindexed(owner).await.is_empty());
    let segments = world.segments(owner).await.unwrap();
    assert_eq!(segments.len(), 100_000_usize.div_ceil(SEGMENT_LINKS));

    for text in ["straße", "STRASSE", "stra%C3%9Fe"] {
        let (page, read) = world.lists.page(owner, &by_text(text)).await.unwrap();
        assert_eq!(page.items.iter().map(|(_, row)| row.id).collect::<Vec<_>>(), [1]);
        assert_eq!(page.next, None);
        assert!(read.0 <= 10 * SEGMENT_LINKS, "{text}: {read:?}");
    }
    // What is in no link is in hardly any segment.
    let (page, read) = world.lists.page(owner, &by_text("zebra")).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none() && read.0 <= 10 * SEGMENT_LINKS, "{read:?}");
    // At worst all segments may hold it: each link is read, once, and the page is not empty.
    let (page, read) = world.lists.page(owner, &by_text("pqrp")).await.unwrap();
    assert_eq!((page.items.len(), page.next, read.0), (1, None, 100_000));
    // What many hold is found at once.
    let (page, read) = world.lists.page(owner, &by_text("items")).await.unwrap();
    assert!(page.items.len() == 20 && page.next == Some(99_981) && read.0 <= STEP_LINKS, "{read:?}");
}

#[tokio::test]
async fn without_an_index_no_page_is_empty_while_more_follow_either() {
    let (mut world, owner) = (World::new(), user(5));
    world.make((1..=6_000).map(|id| link(owner, id, &format!("{}", id % 5_000 == 1), "")).collect()).await;
    let query = by_text("true");
    let (page, _) = world.lists.page(owner, &query).await.unwrap();
    assert_eq!(page.items.iter().map(|(_, row)| row.id).collect::<Vec<_>>(), [5_001], "a page may end early");
    assert_eq!(world.found(owner, &query).await, [5_001, 1]);
    assert_eq!(world.segments(owner).await, None);
    world.index(owner).await;
    assert_eq!(world.found(owner, &query).await, [5_001, 1]);
    assert_eq!(world.check_index(owner).await, 6_000);
}

#[tokio::test]
async fn no_index_is_begun_while_an_older_program_may_write_links() {
    let (mut world, owner) = (World::new(), user(5));
    world.make((1..=300).map(|id| link(owner, id, &id.to_string(), "")).collect()).await;
    let formats = Formats::up_to(Format::NEWEST);
    world.lists = Lists::new(world.kv.clone(), formats.clone());
    world.index(owner).await;
    assert_eq!(world.segments(owner).await, None);
    assert_eq!(world.found(owner, &by_text("example.com/30")).await, [300, 30]);
    formats.see(Format::SEARCH_INDEX).unwrap();
    world.index(owner).await;
    assert_eq!(world.check_index(owner).await, 300);
    assert_eq!(world.found(owner, &by_text("example.com/30")).await, [300, 30]);
}

#[tokio::test]
async fn an_index_of_links_that_change_and_go_does_not_grow() {
    let (mut world, owner) = (World::new(), user(5));
    world.make((1..=256).map(|id| link(owner, id, &id.to_string(), "old")).collect()).await;
    world.index(owner).await;
    for round in 0..4_u64 {
        for id in (1..=256).filter(|id| id % 2 == round % 2) {
            world.change(id, &format!("round {round}")).await;
        }
        world.index(owner).await;
        assert!(world.check_index(owner).await <= 256);
    }
    for id in 1..=244 {
        world.delete(id).await;
    }
    world.index(owner).await;
    assert!(world.check_index(owner).await <= 12 + SEGMENT_LINKS);
    assert_eq!(world.found(owner, &by_text("round 3")).await, world.expected(owner, &by_text("round 3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_while_its_segment_is_written_is_not_lost() {
    let (mut world, owner) = (World::new(), user(5));
    world.make((1..=600).map(|id| link(owner, id, &id.to_string(), "old")).collect()).await;
    let world = Arc::new(world);
    // Two nodes index, two change; each link's last title is its owner's and no other.
    let indexing: Vec<_> = (0..2)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                for _ in 0..60 {
                    world.lists.indexer().step(owner).await.unwrap();
                }
            })
        })
        .collect();
    let changing: Vec<_> = (0..2_u64)
        .map(|half| {
            let kv = world.kv.clone();
            tokio::spawn(async move {
                for round in 0..3 {
                    for id in (1..=600_u64).filter(|id| id % 2 == half && id % 3 == round) {
                        retitle(&kv, id, &format!("new {}", id % 10)).await;
                    }
                }
            })
        })
        .collect();
    for task in indexing.into_iter().chain(changing) {
        task.await.unwrap();
    }
    world.index(owner).await;
    let all = (1..=600_u64).rev();
    for digit in 0..10 {
        let expected: Vec<u64> = all.clone().filter(|id| id % 10 == digit).collect();
        assert_eq!(world.found(owner, &by_text(&format!("new {digit}"))).await, expected);
    }
    assert!(world.found(owner, &by_text("old")).await.is_empty());
    world.check_index(owner).await;
}
