//! An owner's links, newest first, a page at a time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{LinkError, Links};
use crate::invalid::Invalid;
use crate::store::accounts::UserId;
use crate::store::links::{LinkAddress, LinkRow, links_of_owner};

/// Links in a page at most.
pub const PAGE_MAX: usize = 100;
/// Links looked at for one page at most. A filter that matches little gives a page that is not full, with a cursor to go on
/// from, instead of a request without bound.
const SCANNED_MAX: usize = 2_000;
/// Links read from the store at once.
const SCAN_STEP: usize = 200;

/// Which links to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Links in the page at most, 1 to [`PAGE_MAX`].
    pub limit: usize,
    /// Begin after this link.
    pub after: Option<u64>,
    /// Only links with this in their code, URL or title, without regard to case.
    pub contains: Option<String>,
    /// Only links with this tag.
    pub tag: Option<String>,
}

/// A page of links.
#[derive(Clone, Debug)]
pub struct Page {
    /// The links, newest first.
    pub items: Vec<(LinkAddress, LinkRow)>,
    /// The link after which the next page begins; `None` at the end.
    pub next: Option<u64>,
}

impl ListQuery {
    fn matches(&self, at: &LinkAddress, row: &LinkRow) -> bool {
        let tagged = self.tag.as_ref().is_none_or(|tag| row.tags.contains(tag));
        let contains = self.contains.as_ref().is_none_or(|part| {
            let part = part.to_lowercase();
            let title = row.title.as_deref().unwrap_or_default();
            [at.code.as_str(), row.target.as_str(), title].iter().any(|text| text.to_lowercase().contains(&part))
        });
        tagged && contains
    }
}

/// A cursor as callers see it: opaque and URL-safe.
pub fn encode_cursor(after: u64) -> String {
    URL_SAFE_NO_PAD.encode(after.to_be_bytes())
}

/// The cursor that [`encode_cursor`] gave.
pub fn decode_cursor(cursor: &str) -> Result<u64, Invalid> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| Invalid::field("cursor", "must be a next_cursor of an earlier answer"))
}

impl Links {
    /// A page of `owner`'s links.
    pub async fn list(&self, owner: UserId, query: &ListQuery) -> Result<Page, LinkError> {
        let snapshot = self.kv.snapshot().await?;
        let (mut items, mut after, mut scanned) = (Vec::new(), query.after, 0);
        loop {
            let step = links_of_owner(&snapshot, owner, after, SCAN_STEP).await?;
            let at_end = step.len() < SCAN_STEP;
            for (at, row) in step {
                if items.len() == query.limit {
                    return Ok(Page { items, next: after });
                }
                after = Some(row.id);
                scanned += 1;
                if query.matches(&at, &row) {
                    items.push((at, row));
                }
            }
            if at_end {
                return Ok(Page { items, next: None });
            }
            if scanned >= SCANNED_MAX {
                return Ok(Page { items, next: after });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_url_safe_and_come_back() {
        for id in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let cursor = encode_cursor(id);
            assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(decode_cursor(&cursor), Ok(id));
        }
        for wrong in ["", "x", "AAAAAAAAAAAAAAAAAAAA", "ä"] {
            assert!(decode_cursor(wrong).is_err());
        }
    }
}
