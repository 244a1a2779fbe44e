//! The allocator of every program that is built of this library.
//!
//! A release is made of many small pieces of text; with glibc's allocator, making and freeing them took a tenth of its
//! processor time (`docs/benchmarks.md`). What is secret is erased before it is freed, whoever frees it.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
