//! What a scenario says of time, in order.

use std::time::Duration;

use super::scenario::{Scenario, Verb};

/// Something that is due at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act<'a> {
    /// The session of this number opens.
    Open(usize),
    /// Something happens to the machines.
    Do(&'a Verb),
}

/// What is yet to come.
pub(super) struct Timeline<'a> {
    acts: Vec<(Duration, Act<'a>)>,
}

impl<'a> Timeline<'a> {
    /// All that a scenario says. What comes at once, in the order of the file, sessions first.
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let opens = scenario.sessions.iter().enumerate();
        let opens = opens.map(|(n, session)| (seconds(session.at_s), Act::Open(n)));
        let events = scenario.events.iter();
        let events = events.map(|event| (seconds(event.at_s), Act::Do(&event.verb)));
        let mut acts: Vec<_> = opens.chain(events).collect();
        acts.sort_by_key(|(at, _)| *at);
        // The last is taken first.
        acts.reverse();
        Self { acts }
    }

    /// The next act that is due by now.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Act<'a>> {
        let due = self.acts.last().is_some_and(|(at, _)| *at <= now);
        if due { self.acts.pop().map(|(_, act)| act) } else { None }
    }

    /// The sessions that open at the very beginning.
    pub(super) fn first_sessions(&mut self) -> Vec<usize> {
        let mut first = Vec::new();
        self.acts.retain(|(at, act)| match act {
            Act::Open(session) if at.is_zero() => {
                first.push(*session);
                false
            }
            Act::Open(_) | Act::Do(_) => true,
        });
        first.reverse();
        first
    }

    /// Whether a session is yet to open.
    pub(super) fn has_sessions(&self) -> bool {
        self.acts.iter().any(|(_, act)| matches!(act, Act::Open(_)))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_come_in_order_and_when_they_are_due() {
        let scenario = Scenario::parse(
            r#"
            about = "Three acts."
            model = { file = "m", image = "i" }
            board = [{ name = "a", preset = "pi3" }]
            session = [
                { name = "late", at_s = 2, in_flight = 1, count = 9 },
                { name = "first", in_flight = 1, count = 9 },
                { name = "second", in_flight = 1, count = 9 },
            ]
            event = [{ at_s = 1, do = { pause = { node = "a" } } }, { at_s = 2, do = "heal" }]
            "#,
        )
        .expect("it makes sense");
        let mut timeline = Timeline::new(&scenario);
        assert_eq!(timeline.first_sessions(), [1, 2]);
        assert!(timeline.has_sessions());
        assert_eq!(timeline.pop(seconds(0.9)), None);
        assert_eq!(timeline.pop(seconds(5.0)), Some(Act::Do(&scenario.events[0].verb)));
        assert_eq!(timeline.pop(seconds(5.0)), Some(Act::Open(0)));
        assert!(!timeline.has_sessions());
        assert_eq!(timeline.pop(seconds(5.0)), Some(Act::Do(&Verb::Heal)));
        assert_eq!(timeline.pop(seconds(5.0)), None);
    }
}
