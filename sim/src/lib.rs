//! Starling simulator.
