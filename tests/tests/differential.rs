//! The same frames through the loaded kernel program (`BPF_PROG_TEST_RUN`) and through the model: same verdict, same
//! bytes, same counters, same budgets left. Needs root.
//!
//! `LANRAGE_DIFFERENTIAL_CASES` sets the number of random cases, `LANRAGE_DIFFERENTIAL_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "differential/abuse.rs"]
mod abuse;
#[path = "differential/budgets.rs"]
mod budgets;
#[path = "differential/fixtures.rs"]
mod fixtures;
#[path = "differential/mutation.rs"]
mod mutation;
#[path = "differential/pair.rs"]
mod pair;
#[path = "differential/random.rs"]
mod random;
#[path = "differential/verifier.rs"]
mod verifier;
