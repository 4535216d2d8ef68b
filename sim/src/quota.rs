//! A processor that runs at full speed until its quota of a period is used up, and then stands
//! still until the next one, as a control group's does. Who waited finds a whole quota.

use std::time::Duration;

use starling_protocol::Timestamp;

/// A share of a processor, and what of the present period's is used. All in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    share: f64,
    period: u64,
    began: u64,
    used: u64,
}

impl Quota {
    /// A share of one core, given out anew in each period; the first begins at this moment.
    pub(crate) fn new(share: f64, period: Duration, began: Timestamp) -> Self {
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
        Self { share: share.clamp(0.0, 1.0), period, began: began.0, used: 0 }
    }

    /// When a job is done that starts then, after all before it, and that takes so long in the
    /// long run.
    pub(crate) fn done(&mut self, start: Timestamp, span: Duration) -> Timestamp {
        let (mut now, mut left) = (start.0, (span.as_secs_f64() * self.share * 1e6) as u64);
        self.reach(now);
        let whole = ((self.period as f64 * self.share) as u64).max(1);
        loop {
            let end = self.began.saturating_add(self.period);
            let run = left.min(whole.saturating_sub(self.used)).min(end.saturating_sub(now));
            (now, left, self.used) = (now + run, left - run, self.used + run);
            if left == 0 {
                return Timestamp(now);
            }
            // Periods that it uses up whole need no look at each.
            let skipped = left.saturating_sub(1) / whole;
            left -= skipped * whole;
            now = end.saturating_add(skipped.saturating_mul(self.period));
            self.reach(now);
        }
    }

    /// The period in which this moment is has begun.
    fn reach(&mut self, now: u64) {
        let passed = now.saturating_sub(self.began) / self.period;
        if passed > 0 {
            self.began += passed * self.period;
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::{TestResult, quickcheck};

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A fifth of a core, 4 ms in each 20 ms.
    fn fifth() -> Quota {
        Quota::new(0.2, millis(20), Timestamp(0))
    }

    #[test]
    fn who_waited_finds_a_whole_quota() {
        let mut quota = fifth();
        let mut done = |at, span| quota.done(Timestamp(at), millis(span)).0;
        assert_eq!(done(0, 10), 2_000);
        // The other half of the first period's, and half of the second's.
        assert_eq!(done(2_000, 20), 22_000);
        // What the second had left is gone, and what the third had was not used.
        assert_eq!(done(70_000, 20), 74_000);
        // Nothing is left until the next.
        assert_eq!(done(75_000, 5), 81_000);
        // A period ends while it computes, and the next has a quota of its own.
        assert_eq!(done(98_000, 30), 104_000);
    }

    quickcheck! {
        /// In the long run it is the share: a busy processor is never ahead by more than what one
        /// period leaves, nor behind by more than that and what rounding takes.
        fn a_busy_processor_has_its_share(jobs: Vec<u16>, percent: u8) -> TestResult {
            if !(5..=100).contains(&percent) || jobs.len() > 100 {
                return TestResult::discard();
            }
            let mut quota = Quota::new(f64::from(percent) / 100.0, millis(20), Timestamp(0));
            let (mut now, mut total) = (Timestamp(0), 0);
            for job in &jobs {
                total += u64::from(*job);
                now = quota.done(now, Duration::from_micros((*job).into()));
            }
            let rounding = 20 * (jobs.len() as u64 + 1) + total / 100;
            let off = now.0.abs_diff(total);
            TestResult::from_bool(off <= 20_000 + rounding)
        }
    }
}
