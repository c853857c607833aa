//! Finding an owner's links by text and by tag, without reading all of them.
//!
//! [`text`] says what matches. [`filter`] tells of a group of links which texts none of them can hold. [`plan`] decides which
//! links make a group, a *segment*, and [`indexer`] writes segments in the background. [`candidates`] are the links that
//! the index cannot rule out; whether one matches, its row alone says.

pub mod candidates;
pub mod filter;
pub mod indexer;
mod plan;
#[cfg(test)]
mod tests;
pub mod text;
