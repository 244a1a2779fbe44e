//! Templates of the pages people see.
