//! The links of an owner that may match: those of segments that may hold what is asked for, and those that no segment covers.

use super::filter::{Filter, Item};
use crate::kv::Snapshot;
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::search::{each_segment_of_whole, each_unindexed_below};

/// Candidates that are held at once; a search with more of them gathers again. About 1 MiB at most.
pub const CANDIDATES_MAX: usize = 1 << 16;

/// Links that may match.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// Their IDs, highest first.
    pub links: Vec<u64>,
    /// Whether there may be more, with lower IDs.
    pub has_more: bool,
    /// How many links no segment covers.
    pub unindexed: usize,
}

/// The candidates with the highest IDs below `below`; none where the index is not whole.
pub async fn candidates(
    snapshot: &Snapshot,
    owner: UserId,
    items: &[Item],
    below: Option<u64>,
) -> Result<Option<Candidates>, StoreError> {
    let mut highest = Highest { below, most: CANDIDATES_MAX, links: Vec::new(), has_more: false };
    let is_whole = each_segment_of_whole(snapshot, owner, |_number, segment| {
        if Filter::from(segment.filter).may_hold(items) {
            for link in segment.links {
                highest.add(link);
            }
        }
    });
    match is_whole.await {
        Ok(true) => {}
        // A newer program may have written segments that this one cannot read: the links themselves it can.
        Ok(false) | Err(StoreError::Decode { .. } | StoreError::NewerRow { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let unindexed = each_unindexed_below(snapshot, owner, below, |link| highest.add(link)).await?;
    highest.tidy();
    Ok(Some(Candidates { links: highest.links, has_more: highest.has_more, unindexed }))
}

/// The highest IDs of those added, each once.
struct Highest {
    below: Option<u64>,
    most: usize,
    links: Vec<u64>,
    has_more: bool,
}

impl Highest {
    fn add(&mut self, link: u64) {
        if self.below.is_none_or(|below| link < below) {
            self.links.push(link);
            if self.links.len() >= 2 * self.most {
                self.tidy();
            }
        }
    }

    fn tidy(&mut self) {
        self.links.sort_unstable_by(|one, other| other.cmp(one));
        self.links.dedup();
        self.has_more |= self.links.len() > self.most;
        self.links.truncate(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_are_kept_each_once_whatever_their_order() {
        for (below, most, expected, has_more) in [
            (None, 100, (0..100).rev().collect::<Vec<u64>>(), false),
            (None, 99, (1..100).rev().collect(), true),
            (Some(50), 3, vec![49, 48, 47], true),
            (Some(2), 3, vec![1, 0], false),
            (Some(0), 3, vec![], false),
        ] {
            let mut highest = Highest { below, most, links: Vec::new(), has_more: false };
            (0..300_u64).map(|number| number * 37 % 100).for_each(|link| highest.add(link));
            highest.tidy();
            assert_eq!((highest.links, highest.has_more), (expected, has_more), "{below:?} {most}");
        }
    }
}
