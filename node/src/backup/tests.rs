use std::io::BufReader;

use shortener_crds::ids::BootId;
use shortener_crds::ids::allocate::RESTORE_RAISE_BLOCKS;
use tempfile::TempDir;

use super::*;
use crate::allocation::authority::Authority;
use crate::allocation::take_blocks;
use crate::ambient::Clock;
use crate::kv::embedded::Embedded;
use crate::minter::{Minter, MinterMetrics};
use crate::store::keyspace::keyspace_or_insert;
use crate::store::links::link_key;

const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn store() -> (TempDir, Kv) {
    let directory = tempfile::tempdir().unwrap();
    let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(NOW)).unwrap());
    (directory, kv)
}

/// A store with a keyspace, two blocks taken, and more links than fit one page or one batch.
async fn filled() -> (TempDir, Kv) {
    let (directory, kv) = store();
    keyspace_or_insert(&kv, &KeyspaceRow { identity: 7, permutation_key: [3; 32], format: Format::NEWEST })
        .await
        .unwrap();
    take_blocks(&kv, BootId(1), CodeLength::DEFAULT, 2).await.unwrap();
    for batch in 0..3 {
        let written = kv.transact(async |mut txn| {
            for number in 0..PAGE_ROWS {
                txn.put(link_key("", &format!("{batch}-{number}")), vec![1, 0xff, b'\n']);
            }
            Ok::<_, KvError>((txn, ()))
        });
        written.await.unwrap();
    }
    (directory, kv)
}

async fn backup_of(kv: &Kv) -> Vec<u8> {
    let mut backup = Vec::new();
    back_up(kv, NOW, &mut backup, |_| ()).await.unwrap();
    backup
}

async fn restored(backup: &[u8]) -> (TempDir, Kv, Result<u64, BackupError>) {
    let (directory, kv) = store();
    let restored = restore(&kv, &mut BufReader::new(backup), |_| ()).await;
    (directory, kv, restored)
}

async fn rows(kv: &Kv) -> Vec<Row> {
    kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 10_000).await.unwrap()
}

#[tokio::test]
async fn what_is_restored_is_what_was_backed_up_with_another_identity_and_higher_marks() {
    let (_original, kv) = filled().await;
    let backup = backup_of(&kv).await;
    let (_directory, copy, count) = restored(&backup).await;
    let (before, after) = (rows(&kv).await, rows(&copy).await);
    // The record, two claims, the mark, the links.
    assert_eq!(count.unwrap(), 1 + 2 + 1 + 3 * PAGE_ROWS as u64);
    let links = |rows: &[Row]| -> Vec<Row> {
        rows.iter().filter(|(key, _)| matches!(Kind::of_key(key), Some(Kind::Link | Kind::Claim))).cloned().collect()
    };
    assert_eq!(links(&before), links(&after));
    let record = decode_keyspace(&after[0].1).unwrap();
    assert_eq!(record.permutation_key, [3; 32]);
    assert_ne!(record.identity, 7);
    let txn = copy.begin().await.unwrap();
    for length in CodeLength::all() {
        let taken = if length == CodeLength::DEFAULT { 2 } else { 0 };
        let mark = allocation::high_water_mark(&txn, length).await.unwrap();
        assert_eq!(mark, restored_mark(length, taken));
    }
    assert_eq!(restored_mark(CodeLength::DEFAULT, 2), 2 + RESTORE_RAISE_BLOCKS);
}

#[tokio::test]
async fn a_backup_that_was_cut_short_or_changed_is_refused_and_no_node_begins_on_it() {
    let (_original, kv) = filled().await;
    let whole = String::from_utf8(backup_of(&kv).await).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().concat();
    let damaged = [
        without(lines.len() - 1),
        without(5),
        without(1),
        lines[..5].concat(),
        whole[..whole.len() - 1].to_owned(),
        whole.replacen('Z', "Y", 1),
        whole.replacen("\"link\"", "\"lynk\"", 1),
    ];
    for backup in damaged {
        let (_directory, copy, result) = restored(backup.as_bytes()).await;
        assert!(
            matches!(result, Err(BackupError::CutShort | BackupError::Damaged | BackupError::Line { .. })),
            "{result:?}"
        );
        let metrics = MinterMetrics::register(&prometheus::Registry::new()).unwrap();
        let node = Minter::start(
            copy,
            Clock::manual(NOW),
            CodeLength::DEFAULT,
            Authority::Own,
            Formats::up_to(Format::NEWEST),
            metrics,
        )
        .await;
        assert!(matches!(node, Err(StoreError::HalfRestored)), "{node:?}");
    }
}

#[tokio::test]
async fn what_is_no_backup_is_refused_before_anything_is_written() {
    let (_original, kv) = filled().await;
    let whole = String::from_utf8(backup_of(&kv).await).unwrap();
    let row = whole.lines().nth(1).unwrap();
    for backup in ["", "{}\n", "hello\n", &format!("{row}\n"), &whole.replacen("\"version\":1", "\"version\":2", 1)] {
        let (_directory, copy, result) = restored(backup.as_bytes()).await;
        assert!(matches!(result, Err(BackupError::CutShort | BackupError::Line { number: 1, .. })), "{result:?}");
        assert!(rows(&copy).await.is_empty());
    }
}

#[tokio::test]
async fn only_an_empty_keyspace_is_restored_into_and_only_a_used_one_backed_up() {
    let (_original, kv) = filled().await;
    let backup = backup_of(&kv).await;
    let before = rows(&kv).await;
    let refused = restore(&kv, &mut BufReader::new(backup.as_slice()), |_| ()).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty)), "{refused:?}");
    assert_eq!(rows(&kv).await, before);
    let (_directory, empty) = store();
    assert!(matches!(back_up(&empty, NOW, &mut Vec::new(), |_| ()).await, Err(BackupError::Empty)));
}

#[test]
fn every_kind_has_a_name_of_its_own() {
    let names: std::collections::HashSet<&str> = crate::store::KINDS.iter().map(|(_, name)| *name).collect();
    let bytes: Vec<u8> = crate::store::KINDS.iter().map(|(kind, _)| *kind as u8).collect();
    assert_eq!(names.len(), crate::store::KINDS.len());
    assert!(bytes.is_sorted_by(|a, b| a < b), "each byte is that of one kind: {bytes:?}");
}
