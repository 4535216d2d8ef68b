//! Which lane gets the next request of a stream.
//!
//! Lanes are unequal, and get more so while others use the same machines. So nobody divides the
//! requests among them beforehand: each lane has as many on their way as keep it busy, all others
//! wait in one queue, and the next goes where its output can be expected first.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Timestamp;

/// The most requests that are of use to pieces one after the other: one at each, one that waits
/// there, and one on its way.
#[must_use]
pub(crate) fn window(pieces: usize) -> usize {
    2 * pieces + 1
}

/// The requests of one stream, and its lanes. Both have numbers of the caller's.
#[derive(Clone, Debug, Default)]
pub struct Dispatch {
    waiting: VecDeque<u64>,
    lanes: BTreeMap<u16, Lane>,
}

#[derive(Clone, Debug)]
struct Lane {
    /// One after the other.
    pieces: usize,
    /// When each was sent.
    under_way: BTreeMap<u64, Timestamp>,
    /// From one output to the next while it is busy.
    seconds: f64,
    last: Timestamp,
    /// From a request to its output, the shortest so far: when it waited for no other.
    alone: Option<f64>,
}

impl Dispatch {
    /// A lane of so many pieces one after the other, which takes requests from now on and is
    /// expected to give an output every so many seconds. One that is there already changes its
    /// pieces only.
    pub fn open(&mut self, now: Timestamp, lane: u16, pieces: usize, seconds: f64) {
        let fresh = || Lane { pieces, under_way: BTreeMap::new(), seconds, last: now, alone: None };
        self.lanes.entry(lane).or_insert_with(fresh).pieces = pieces.max(1);
    }

    /// A lane that takes no more. What it had under way waits again, before all others.
    pub fn close(&mut self, lane: u16) {
        let Some(lane) = self.lanes.remove(&lane) else { return };
        for request in lane.under_way.into_keys().rev() {
            self.waiting.push_front(request);
        }
    }

    /// A request that has not been seen before.
    pub fn push(&mut self, request: u64) {
        self.waiting.push_back(request);
    }

    /// Whether any lane is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// The next request to send, and to which lane; nothing while none has room.
    pub fn next(&mut self, now: Timestamp) -> Option<(u64, u16)> {
        let open = self.lanes.iter().filter(|(_, lane)| lane.under_way.len() < lane.window());
        let soonest = open.min_by(|(_, a), (_, b)| a.expected().total_cmp(&b.expected()));
        let number = *soonest?.0;
        let request = self.waiting.pop_front()?;
        self.lanes.get_mut(&number)?.under_way.insert(request, now);
        Some((request, number))
    }

    /// An output has come through a lane. Says whether it is the first of its request.
    pub fn done(&mut self, now: Timestamp, number: u16, request: u64) -> bool {
        let lane = self.lanes.get_mut(&number);
        let sent = lane.and_then(|lane| Some((lane.under_way.remove(&request)?, lane)));
        let Some((sent, lane)) = sent else { return false };
        let span = now.since(sent.max(lane.last)).as_secs_f64();
        lane.seconds += (span - lane.seconds) * WEIGHT;
        lane.last = now;
        let latency = now.since(sent).as_secs_f64();
        lane.alone = Some(lane.alone.map_or(latency, |alone| alone.min(latency)));
        true
    }

    /// Everything that has no output yet.
    pub fn drain(&mut self) -> Vec<u64> {
        let lanes = std::mem::take(&mut self.lanes);
        let under_way = lanes.into_values().flat_map(|lane| lane.under_way.into_keys());
        under_way.chain(std::mem::take(&mut self.waiting)).collect()
    }
}

impl Lane {
    /// Requests that keep it busy. A machine by itself computes one while the next waits there, and
    /// one more would wait as well, while a faster machine might have had it; unless requests are
    /// under way for longer than they are computed. Pieces that take different times need some slack.
    fn window(&self) -> usize {
        let on_the_way = self.alone.is_some_and(|alone| alone >= LONG_WAY * self.seconds);
        let all = window(self.pieces);
        if self.pieces > 1 || on_the_way { all } else { all - 1 }
    }

    /// Seconds until one more request would have its output.
    fn expected(&self) -> f64 {
        (self.under_way.len() + 1) as f64 * self.seconds
    }
}

/// A request that takes so many times as long as the time between two outputs is under way for
/// longer than it is computed. Where two requests can't keep a machine busy it takes twice as long,
/// and a little is left to chance.
const LONG_WAY: f64 = 1.75;
/// Of the last output, in what a lane is expected to take.
const WEIGHT: f64 = 0.2;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quickcheck::quickcheck;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1000)
    }

    /// Lanes of so many pieces and seconds.
    fn stream(requests: u64, lanes: &[(usize, f64)]) -> Dispatch {
        let mut dispatch = Dispatch::default();
        (0..requests).for_each(|request| dispatch.push(request));
        for (lane, (pieces, seconds)) in (0..).zip(lanes) {
            dispatch.open(at(0), lane, *pieces, *seconds);
        }
        dispatch
    }

    fn check(lanes: &[(usize, f64)], requests: u64, expected: &[u16]) {
        let mut dispatch = stream(requests, lanes);
        let sent: Vec<u16> =
            std::iter::from_fn(|| dispatch.next(at(0))).map(|(_, lane)| lane).collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_next_request_goes_where_its_output_comes_first() {
        check(&[], 3, &[]);
        check(&[(1, 1.0)], 3, &[0, 0]);
        check(&[(2, 1.0), (1, 2.5)], 4, &[0, 0, 1, 0]);
        check(&[(2, 1.0), (2, 10.0)], 3, &[0, 0, 0]);
        check(&[(0, 1.0)], 3, &[0, 0]);
    }

    #[test]
    fn what_a_lost_lane_had_is_sent_again_before_all_others() {
        let mut dispatch = stream(6, &[(1, 1.0), (1, 1.1)]);
        let sent: Vec<(u64, u16)> = std::iter::from_fn(|| dispatch.next(at(0))).collect();
        assert_eq!(sent, [(0, 0), (1, 1), (2, 0), (3, 1)]);
        dispatch.close(0);
        assert!(!dispatch.done(at(1), 0, 0), "it is closed");
        assert!(dispatch.done(at(1), 1, 3) && !dispatch.done(at(1), 1, 3), "once only");
        assert_eq!(dispatch.next(at(1)), Some((0, 1)));
        dispatch.close(1);
        assert!(!dispatch.is_open() && dispatch.next(at(1)).is_none());
        assert_eq!(dispatch.drain(), [0, 1, 2, 4, 5]);
    }

    #[test]
    fn a_lane_that_slows_down_gets_less() {
        let mut dispatch = stream(300, &[(1, 0.010), (1, 0.010)]);
        // Lane 0 gives an output every 10 ms, lane 1 every 40, whatever was expected of them.
        let (mut counts, mut under_way) = ([0; 2], [const { VecDeque::new() }; 2]);
        for millis in 0..1000 {
            while let Some((request, lane)) = dispatch.next(at(millis)) {
                under_way[usize::from(lane)].push_back(request);
            }
            for (lane, every) in [(0_u16, 10), (1, 40)] {
                let place = usize::from(lane);
                if millis % every == every - 1 {
                    let request: u64 = under_way[place].pop_front().expect("always one");
                    assert!(dispatch.done(at(millis), lane, request));
                    counts[place] += 1;
                }
            }
        }
        assert_eq!(counts, [100, 25]);
        let seconds = |lane: u16| dispatch.lanes[&lane].seconds;
        assert!((seconds(0) - 0.010).abs() < 1e-3 && (seconds(1) - 0.040).abs() < 1e-3);
    }

    #[test]
    fn a_machine_gets_a_third_request_only_where_the_way_takes_longer_than_computing() {
        // Of a piece that is computed in 10 ms, behind a way of so many there and back.
        for (way, expected) in [(0, 2), (5, 2), (10, 3), (50, 3)] {
            let mut dispatch = stream(100, &[(1, 0.010)]);
            let (mut under_way, mut done) = (VecDeque::new(), 0);
            for millis in 0..500 {
                while under_way.front().is_some_and(|(_, end)| *end <= millis) {
                    let (request, _) = under_way.pop_front().expect("it is there");
                    assert!(dispatch.done(at(millis), 0, request));
                }
                while let Some((request, _)) = dispatch.next(at(millis)) {
                    done = (millis + way).max(done) + 10;
                    under_way.push_back((request, done));
                }
            }
            assert_eq!(under_way.len(), expected, "a way of {way} ms");
        }
    }

    quickcheck! {
        fn every_request_has_one_output_whatever_lanes_come_and_go(events: Vec<(u8, u16)>) -> bool {
            let (mut dispatch, mut pushed, mut answered) = (Dispatch::default(), 0, BTreeSet::new());
            let mut under_way: Vec<(u64, u16)> = Vec::new();
            for (now, (event, lane)) in (0..).zip(events) {
                let (now, lane) = (at(now), lane % 4);
                match event % 4 {
                    0 => dispatch.open(now, lane, 2, f64::from(lane)),
                    1 => dispatch.close(lane),
                    2 => {
                        dispatch.push(pushed);
                        pushed += 1;
                    }
                    _ => {
                        if let Some((request, lane)) = under_way.pop()
                            && dispatch.done(now, lane, request)
                            && !answered.insert(request)
                        {
                            return false;
                        }
                    }
                }
                under_way.extend(std::iter::from_fn(|| dispatch.next(now)));
            }
            let left: BTreeSet<u64> = dispatch.drain().into_iter().collect();
            left.is_disjoint(&answered) && left.len() + answered.len() == pushed as usize
        }
    }
}
