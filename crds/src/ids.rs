//! Who may mint what, so that no two processes ever mint the same code or the same Snowflake ID.
