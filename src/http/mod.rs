//! Router, extraction, problems, routes.
