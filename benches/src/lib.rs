//! Benchmarks of Starling: see the files in `benches/`.
