//! Accounts: who may sign in, and how a request shows whose it is.

pub mod email;
pub mod password;
pub mod password_pool;
pub mod secret_key;
pub mod token;
