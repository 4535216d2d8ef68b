//! Ctrl-C, as something to look at: whoever waits looks, and lets go of all that it holds.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;

/// Whether somebody wants this to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on Ctrl-C and its like end nothing by themselves.
    ///
    /// # Errors
    /// If the system does not let them be caught.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// Fails once somebody has asked for the end.
    pub(super) fn look(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::SeqCst) { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
