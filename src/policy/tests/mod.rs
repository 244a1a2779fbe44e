//! Tests of the whole room: vectors, properties, findings, documents.

mod bounds;
mod documents;
mod findings;
mod fixture;
mod notary;
mod preparing;
mod properties;
mod remembering;
mod vectors;
