//! The only room that names sqlx.
