//! The HTTP contract, row by row, against a real node: what every client may rely on. Most scenarios share one node, each
//! with callers of its own; a scenario whose settings would disturb the others starts a node for itself.
mod http {
    mod accounts;
    mod analytics;
    mod changes;
    mod connections;
    mod creates;
    mod domains;
    mod fuzz;
    mod idempotency;
    mod limits;
    mod lists;
    mod logs;
    mod metrics;
    mod moved_domains;
    mod pages;
    mod problems;
    mod qr;
    mod redirects;
    mod scene;
    mod short_form;
    mod sign_in;
    mod system;
    mod takedowns;
    mod tokens;
    mod unread;
}
