//! Which links make a segment, and what becomes of the segments that listed them before. Pure.

use std::collections::HashSet;

use super::filter::{FILTER_BYTES_MAX, Filter};
use crate::kv::{TRANSACTION_BYTES_MAX, TRANSACTION_ROWS_MAX};
use crate::store::links::{LinkAddress, LinkRow};
use crate::store::search::{Segment, Unindexed};

/// Links in a segment. A search reads the rows of all of them when one may match.
pub(super) const SEGMENT_LINKS: usize = 128;
/// A segment that is left with fewer is given up, and its links go into others.
const SEGMENT_LINKS_MIN: usize = 32;
/// Links that are looked at in one transaction.
pub(super) const STEP_LINKS: usize = 2 * SEGMENT_LINKS;

/// Bytes of a segment's IDs, and of an unindexed link's key, at most.
const LINK_BYTES_MAX: usize = 32;
/// At worst each link of a step was in a segment of its own, and all of these segments are given up.
const _: () = assert!(STEP_LINKS * (SEGMENT_LINKS_MIN + 2) + STEP_LINKS <= TRANSACTION_ROWS_MAX);
const _: () = assert!(
    STEP_LINKS * (FILTER_BYTES_MAX + (SEGMENT_LINKS + SEGMENT_LINKS_MIN) * LINK_BYTES_MAX) <= TRANSACTION_BYTES_MAX
);

/// An unindexed link, and its row unless it is gone.
pub(super) type Found = (Unindexed, Option<(LinkAddress, LinkRow)>);

/// What is done in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// New segments.
    pub(super) segments: Vec<Segment>,
    /// Links that are not unindexed any more.
    pub(super) done: Vec<u64>,
    /// Those of them that older segments may list.
    pub(super) moved: HashSet<u64>,
}

/// What becomes of a segment that some links leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Revision {
    /// None of them was in it.
    Kept,
    /// It lists these. Its filter says "perhaps" to more than they hold.
    Shrunk(Segment),
    /// It is given up; these are unindexed again.
    GivenUp(Vec<u64>),
}

/// Segments of as many of `links` as fill them; all of them if `is_all`.
pub(super) fn segments(mut links: Vec<(LinkAddress, LinkRow)>, is_all: bool) -> Vec<Segment> {
    links.sort_unstable_by_key(|(_, row)| row.id);
    let groups = links.chunks(SEGMENT_LINKS).filter(|group| is_all || group.len() == SEGMENT_LINKS);
    groups.map(|group| Segment { links: ids(group), filter: Filter::of(group).into() }).collect()
}

fn ids(group: &[(LinkAddress, LinkRow)]) -> Vec<u64> {
    group.iter().map(|(_, row)| row.id).collect()
}

/// What to do about unindexed links; nothing while they are too few to fill a segment.
pub(super) fn plan(found: Vec<Found>) -> Option<Plan> {
    let was_indexed = |unindexed: &Unindexed| unindexed.was_indexed.then_some(unindexed.link);
    let mut movable: HashSet<u64> = found.iter().filter_map(|(unindexed, _)| was_indexed(unindexed)).collect();
    let mut done: Vec<u64> = found.iter().filter(|(_, link)| link.is_none()).map(|(gone, _)| gone.link).collect();
    let segments = segments(found.into_iter().filter_map(|(_, link)| link).collect(), false);
    if segments.is_empty() && done.len() < SEGMENT_LINKS {
        return None;
    }
    done.extend(segments.iter().flat_map(|segment| &segment.links));
    movable.retain(|link| done.contains(link));
    Some(Plan { segments, done, moved: movable })
}

/// What becomes of a segment when `moved` leave it.
pub(super) fn revision(segment: Segment, moved: &HashSet<u64>) -> Revision {
    let before = segment.links.len();
    let links: Vec<u64> = segment.links.into_iter().filter(|link| !moved.contains(link)).collect();
    match links.len() {
        same if same == before => Revision::Kept,
        few if few < SEGMENT_LINKS_MIN => Revision::GivenUp(links),
        _ => Revision::Shrunk(Segment { links, filter: segment.filter }),
    }
}
