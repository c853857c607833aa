//! What both programs write into their logs of an error: all of it.

use std::error::Error;
use std::fmt;

/// An error and what caused it, in one line. JSON log lines have of an error only what it says by itself, which is often nothing but
/// what was tried.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct Failed(#[source] std::num::ParseIntError);

    #[test]
    fn all_causes_are_told() {
        let failed = Failed("x".parse::<u8>().unwrap_err());
        assert_eq!(Causes(&failed).to_string(), "the store failed: invalid digit found in string");
    }
}
