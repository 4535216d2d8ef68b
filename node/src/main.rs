//! `starling`: peer-to-peer DNN inference on ad-hoc networks. The commands are in `cli`, the one
//! loop that they start is in `runtime`; what they decide, `starling-protocol` decides.

mod cli;
mod convert;
mod heap;
mod identity;
mod net;
mod quota;
mod runtime;
mod standstill;
mod store;
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    heap::one_for_all();
    cli::main()
}
