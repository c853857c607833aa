//! The click pipeline and its summaries.
