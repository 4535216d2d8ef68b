//! What this node's link carries, as told by the frames that come in over it.

use std::{collections::VecDeque, time::Duration};

/// The speed of a link: what the user says, until frames have shown it.
///
/// What a frame takes from its first byte to its last is the link's time only where the link is
/// what it waits for. A sender or receiver that computes makes it longer, and a frame that waited
/// in the buffers comes in no time at all. On a link that is the bottleneck nearly all frames take
/// the same; on a fast one between busy machines their times are all over the place, most of them
/// far too long. So the quickest quarter of the last frames is believed.
pub(super) struct LinkSpeed {
    told: u64,
    // Seconds per byte of the last frames, the newest last.
    frames: VecDeque<f64>,
}

impl LinkSpeed {
    /// Of so many bytes a second, as the user says.
    pub(super) fn told(bytes_per_s: u64) -> Self {
        Self { told: bytes_per_s, frames: VecDeque::new() }
    }

    /// A frame has come in whole. Returns the bytes per second that are believed now; nothing if
    /// the frame says nothing: small ones measure the latency.
    pub(super) fn on_frame(&mut self, bytes: u64, transfer: Duration) -> Option<u64> {
        let seconds = transfer.as_secs_f64();
        if bytes < FRAME_MIN || seconds <= 0.0 {
            return None;
        }
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back((seconds / bytes as f64).max(1.0 / LINK_MAX));
        Some(self.bytes_per_s())
    }

    fn bytes_per_s(&self) -> u64 {
        if self.frames.len() < FRAMES_MIN {
            return self.told;
        }
        let mut sorted: Vec<f64> = self.frames.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        (1.0 / sorted[sorted.len() / 4]) as u64
    }
}

/// Smaller frames measure the latency, not the bandwidth.
const FRAME_MIN: u64 = 32 * 1024;
/// A few frames say less than the user does.
const FRAMES_MIN: usize = 8;
const FRAMES_MAX: usize = 64;
/// 10 Gbit/s: a frame that was in the buffers already seems to come faster than any link.
const LINK_MAX: f64 = 1.25e9;

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a megabyte that take so many milliseconds each.
    fn check(millis: &[f64], expected: Option<u64>) {
        let mut link = LinkSpeed::told(12_500_000);
        let mut last = None;
        for millis in millis {
            last = link.on_frame(1_000_000, Duration::from_secs_f64(millis / 1e3));
        }
        // Times are whole nanoseconds.
        let near = |a: u64, b: u64| a.abs_diff(b) <= b / 1000;
        assert!(last.zip(expected).is_none_or(|(a, b)| near(a, b)), "{last:?}, not {expected:?}");
        assert_eq!(last.is_some(), expected.is_some());
    }

    #[test]
    fn the_user_is_believed_until_frames_say_more() {
        check(&[10.0; 7], Some(12_500_000));
        check(&[10.0; 8], Some(100_000_000));
    }

    #[test]
    fn neither_busy_machines_nor_full_buffers_count_as_links() {
        // Two of ten were in the buffers, five waited for a processor.
        check(&[10.0, 0.1, 40.0, 10.0, 90.0, 0.1, 70.0, 10.0, 50.0, 60.0], Some(100_000_000));
        // None came faster than any link does.
        check(&[0.01; 20], Some(1_250_000_000));
    }

    #[test]
    fn a_link_that_changes_is_noticed() {
        let mut millis = vec![10.0; 200];
        millis.extend([100.0; 60]);
        check(&millis, Some(10_000_000));
    }

    #[test]
    fn small_frames_say_nothing() {
        let mut link = LinkSpeed::told(5);
        assert_eq!(link.on_frame(FRAME_MIN - 1, Duration::from_secs(1)), None);
        assert_eq!(link.on_frame(1 << 20, Duration::ZERO), None);
    }
}
