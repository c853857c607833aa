//! The allocation protocol as models whose every reachable state is checked. They call the product's own functions.
pub mod blocks;
pub mod windows;
