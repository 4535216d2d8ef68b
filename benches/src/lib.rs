//! Benchmarks of Starling, with criterion. This library is empty: the benchmarks are in `benches/`.
//!
//! ```text
//! cargo bench -p starling-benches                     # all
//! cargo bench -p starling-benches --bench auction     # one file
//! cargo bench -p starling-benches -- codec            # those whose name has "codec" in it
//! ```
