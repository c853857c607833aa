//! The benchmarks: each prints a table of figures, and of ratios between things that ran side by side.
pub mod creates;
pub mod engines;
pub mod fleet;
pub mod load;
pub mod machine;
pub mod memory;
pub mod operator;
pub mod redirect;
pub mod unread;
