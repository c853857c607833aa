//! A set that says "certainly not" or "perhaps": the pieces of text that a group of links holds, in a few thousand bits.
//!
//! A Bloom filter. Its size is a power of two, so that half of it can be folded onto the other half: it is filled at its
//! largest and folded while it is nearly empty. A group of short links gets a small filter, and one of long links a large one, without
//! their pieces being counted or held.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::text::{Needle, texts_of};
use crate::store::links::{LinkAddress, LinkRow};

/// Bytes of the largest filter. 128 links of the usual length need a quarter of it; with ever longer ones it says "perhaps" more often.
pub const FILTER_BYTES_MAX: usize = 16 << 10;
/// Bytes of the smallest.
const FILTER_BYTES_MIN: usize = 64;
/// Bits that each item sets.
const BITS_AN_ITEM: u32 = 4;
/// The longest pieces that text is cut into, in characters.
const GRAM_CHARS_MAX: usize = 3;
/// Keep pieces of text and tags apart.
const TEXT_SEED: u64 = 1;
const TAG_SEED: u64 = 2;

/// What links hold, perhaps.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter(Vec<u8>);

impl From<Vec<u8>> for Filter {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Filter> for Vec<u8> {
    fn from(filter: Filter) -> Self {
        filter.0
    }
}

/// Whether one item is in a [`Filter`]: an item's hash, which a release never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item(u64);

impl Filter {
    /// Of what these links hold.
    pub fn of<'a>(links: impl IntoIterator<Item = &'a (LinkAddress, LinkRow)>) -> Self {
        let mut filter = Self(vec![0; FILTER_BYTES_MAX]);
        for (at, row) in links {
            for text in texts_of(at, row) {
                grams(&text).map(Item::text).for_each(|item| filter.add(item));
            }
            for tag in &row.tags {
                filter.add(Item::tag(tag));
            }
        }
        while filter.0.len() > FILTER_BYTES_MIN {
            let half = filter.folded();
            if half.is_crowded() {
                break;
            }
            filter = half;
        }
        filter
    }

    /// Whether all of these may be in one of the links.
    pub fn may_hold(&self, items: &[Item]) -> bool {
        let holds = |at: usize, bit: u8| self.0.get(at).is_some_and(|byte| byte & bit != 0);
        items.iter().all(|item| item.places(self.0.len()).all(|(at, bit)| holds(at, bit)))
    }

    fn add(&mut self, item: Item) {
        for (at, bit) in item.places(self.0.len()) {
            if let Some(byte) = self.0.get_mut(at) {
                *byte |= bit;
            }
        }
    }

    /// The same in half the size: a place modulo half the size is one modulo the whole, so that nothing is lost.
    fn folded(&self) -> Self {
        let (one, other) = self.0.split_at(self.0.len() / 2);
        Self(one.iter().zip(other).map(|(one, other)| one | other).collect())
    }

    /// Whether more than half of the bits are set: beyond that it says "perhaps" to one of 16 that it does not hold.
    fn is_crowded(&self) -> bool {
        let set: usize = self.0.iter().map(|byte| byte.count_ones() as usize).sum();
        set > self.0.len() * 8 / 2
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} bytes)", self.0.len())
    }
}

impl Item {
    fn text(gram: &str) -> Self {
        Self(xxh3_64_with_seed(gram.as_bytes(), TEXT_SEED))
    }

    fn tag(tag: &str) -> Self {
        Self(xxh3_64_with_seed(tag.as_bytes(), TAG_SEED))
    }

    /// Everything that a link must hold to be one of those asked for; a link that holds it need not be one.
    pub fn all_of(needle: &Needle) -> Vec<Self> {
        let grams = needle.text().into_iter().flat_map(grams).map(Self::text);
        grams.chain(needle.tag().map(Self::tag)).collect()
    }

    /// The bytes and bits that stand for it in a filter of so many bytes, which is a power of two.
    fn places(self, bytes: usize) -> impl Iterator<Item = (usize, u8)> {
        let mask = (bytes as u64 * 8).wrapping_sub(1);
        let step = (self.0 >> 32) | 1;
        (0..u64::from(BITS_AN_ITEM)).map(move |number| {
            let place = self.0.wrapping_add(number.wrapping_mul(step)) & mask;
            (usize::try_from(place / 8).unwrap_or(usize::MAX), 1 << (place % 8))
        })
    }
}

/// Every piece of one, two and three characters of a text.
fn grams(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().filter_map(|(at, _)| text.get(at..)).flat_map(|rest| {
        rest.char_indices().take(GRAM_CHARS_MAX).filter_map(move |(at, c)| rest.get(..at + c.len_utf8()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;

    fn link(number: u64, target: String, title: &str, tags: &[&str]) -> (LinkAddress, LinkRow) {
        // Like a minted code.
        let code = format!("{:07x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 36);
        let row = LinkRow {
            id: number,
            owner: None,
            target,
            status: 302,
            title: Some(title.to_owned()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            is_active: true,
            expires_at: None,
            created_at: UnixMs(1),
            updated_at: UnixMs(1),
            version: 1,
            is_alias: false,
            is_deleted: false,
        };
        (LinkAddress { domain: String::new(), code }, row)
    }

    fn usual(links: u64) -> Vec<(LinkAddress, LinkRow)> {
        let target = |number| {
            format!("https://shop.example.com/articles/{number}/stra%C3%9Fe?utm_source=letter&utm_id=x{number}")
        };
        (0..links).map(|number| link(number, target(70_000 + number), "Summer sale", &["summer", "Sale"])).collect()
    }

    fn may_hold(filter: &Filter, text: Option<&str>, tag: Option<&str>) -> bool {
        filter.may_hold(&Item::all_of(&Needle::new(text, tag).unwrap()))
    }

    #[test]
    fn whatever_a_link_is_found_by_its_filter_may_hold() {
        for links in [
            usual(1),
            usual(128),
            (0..128).map(|n| link(n, format!("https://a.example/{}", "é".repeat(40)), "ß", &["T"])).collect(),
        ] {
            let filter = Filter::of(&links);
            for (at, row) in links.iter().step_by(40) {
                for text in texts_of(at, row) {
                    let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
                    for part in starts.iter().filter_map(|start| text.get(*start..)) {
                        assert!(may_hold(&filter, Some(part), row.tags.first().map(String::as_str)), "{part}");
                    }
                }
            }
            assert!(!may_hold(&filter, None, Some("no such tag")));
        }
    }

    #[test]
    fn filters_are_as_large_as_what_they_hold_and_seldom_wrong() {
        assert_eq!(Filter::of(&[]).bytes(), FILTER_BYTES_MIN);
        let long = |n: u64| {
            link(
                n,
                format!("https://example.com/{}", hex::encode([n.to_le_bytes().map(|b| b ^ 0x5a); 500].as_flattened())),
                "",
                &[],
            )
        };
        assert!(Filter::of(&(0..128).map(long).collect::<Vec<_>>()).bytes() <= FILTER_BYTES_MAX);
        let filter = Filter::of(&usual(128));
        assert!((1 << 10..=4 << 10).contains(&filter.bytes()), "{filter:?}");
        // Words of six letters that none of the links holds.
        let words = (0..2_000_u32).map(|n| format!("q{n:04}j"));
        let wrong = words.filter(|word| may_hold(&filter, Some(word), None)).count();
        assert!(wrong <= 20, "{wrong} of 2,000");
        let tags = (0..2_000_u32).filter(|n| may_hold(&filter, None, Some(&format!("tag {n}")))).count();
        assert!(tags <= 200, "{tags} of 2,000");
    }

    #[test]
    fn where_an_item_stands_never_changes() {
        let places = |bytes| Item::text("ß").places(bytes).collect::<Vec<_>>();
        assert_eq!(grams("aß日").collect::<Vec<_>>(), ["a", "aß", "aß日", "ß", "ß日", "日"]);
        assert_eq!(places(64), [(45, 128), (23, 64), (1, 32), (43, 16)]);
        assert_eq!(places(FILTER_BYTES_MAX), [(6_381, 128), (15_831, 64), (8_897, 32), (1_963, 16)]);
    }
}
