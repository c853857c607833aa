//! What was said by agents that were read before: visitors share few distinct ones, and reading one takes microseconds.

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::{UserAgent, parse};

/// Bytes kept at most: some thousands of agents. A stranger who sends ever new ones gets no more of them.
const BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a typical entry, from which the cache sizes its tables.
const ENTRY_BYTES_TYPICAL: u64 = 256;
/// Bytes that an entry takes beside its agent: what was read, and the cache's own.
const ENTRY_BYTES: usize = size_of::<UserAgent>() + 64;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Box<[u8]>, UserAgent> for ByBytes {
    fn weight(&self, agent: &Box<[u8]>, _: &UserAgent) -> u64 {
        (agent.len() + ENTRY_BYTES) as u64
    }
}

/// Reads agents, each distinct one once while it is remembered.
pub struct Agents(Cache<Box<[u8]>, UserAgent, ByBytes>);

impl Default for Agents {
    fn default() -> Self {
        super::person::prepare();
        let items = usize::try_from(BYTES_MAX / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(items, BYTES_MAX, ByBytes))
    }
}

impl Agents {
    /// What the header says.
    pub fn read(&mut self, header: &[u8]) -> UserAgent {
        self.read_with(header, parse)
    }

    fn read_with(&mut self, header: &[u8], parse: impl FnOnce(&str) -> UserAgent) -> UserAgent {
        if let Some(known) = self.0.get(header) {
            return *known;
        }
        let read = parse(&String::from_utf8_lossy(header));
        self.0.insert(header.into(), read);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_read_as_without_the_memo() {
        let (mut agents, mut parsed) = (Agents::default(), 0);
        for header in ["curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0", ""] {
            for _ in 0..3 {
                let count_and_parse = |header: &str| {
                    parsed += 1;
                    parse(header)
                };
                assert_eq!(agents.read_with(header.as_bytes(), count_and_parse), parse(header), "{header}");
            }
        }
        assert_eq!(parsed, 3, "each distinct agent is read once");
        assert!(agents.read(b"Mozilla/5.0 (X11; \xff) \xc3").bot, "what is no text is read as well");
    }

    #[test]
    fn ever_new_agents_take_no_more_memory_than_the_limit() {
        let (mut agents, nothing) = (Agents::default(), parse(""));
        for n in 0..20_000 {
            agents.read_with(format!("{n} {}", "x".repeat(n % 512)).as_bytes(), |_| nothing);
        }
        assert!(agents.0.weight() <= BYTES_MAX, "{}", agents.0.weight());
        assert!(agents.0.len() > 1_000, "{}", agents.0.len());
    }
}
