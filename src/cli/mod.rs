//! One file per verb; clients of the API.
