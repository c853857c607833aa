//! How many calls may be repeated: a fifth of those made, and a few to begin with. Pure. (The idea is that of retry budgets
//! in Finagle and of retry throttling in gRPC, proposal A6.)

/// What a call adds, in hundredths of a retry.
const PER_CALL: u32 = 20;
/// What a retry costs.
const PER_RETRY: u32 = 100;
/// Most that is saved up: quiet hours must not pay for a storm.
const SAVED_MAX: u32 = 10 * PER_RETRY;

/// The budget of one back end.
#[derive(Clone, Debug)]
pub struct Budget {
    saved: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: SAVED_MAX }
    }
}

impl Budget {
    /// Takes note of a call.
    pub fn called(&mut self) {
        self.saved = (self.saved + PER_CALL).min(SAVED_MAX);
    }

    /// Takes a retry, if there is one to take.
    pub fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(PER_RETRY);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_calls_may_be_repeated_and_ten_more() {
        let mut budget = Budget::default();
        let retries = (0..10_000).filter(|_| {
            budget.called();
            budget.take()
        });
        let retries = retries.count();
        assert!((2_000..=2_010).contains(&retries), "{retries}");
    }
}
