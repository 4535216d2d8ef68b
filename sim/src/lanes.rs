//! Streams over several sessions side by side, as a live node's are: each request goes through one
//! of them, whichever the protocol's own [`Dispatch`] says.

use std::collections::BTreeMap;

use starling_protocol::{SessionId, Timestamp, dispatch::Dispatch, node::Command};

use crate::world::World;

/// The sessions of one stream.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The session's number at its requester.
    pub session: u64,
    /// Its pieces.
    pub pieces: usize,
    /// Seconds between two outputs, as its agreement predicts.
    pub seconds: f64,
}

/// A stream under way.
pub(crate) struct Lanes {
    place: usize,
    sessions: Vec<u64>,
    dispatch: Dispatch,
    wanted: usize,
    // When each request was asked for, and which it is in its session.
    asked: BTreeMap<u64, Timestamp>,
    sent: BTreeMap<(u64, u64), u64>,
    next: u64,
}

impl World {
    /// From now on the application at a place keeps this many requests waiting or in flight, over
    /// all of some ready sessions of its own together. Gives the number by which to
    /// [ask](Self::ask_lanes) for more.
    pub fn stream_lanes(&mut self, place: usize, lanes: &[Lane], wanted: usize) -> usize {
        let (now, mut dispatch) = (self.now(), Dispatch::default());
        for (number, lane) in (0..).zip(lanes) {
            dispatch.open(now, number, lane.pieces, lane.seconds);
        }
        let sessions = lanes.iter().map(|lane| lane.session).collect();
        let (asked, sent) = (BTreeMap::new(), BTreeMap::new());
        self.lanes.push(Lanes { place, sessions, dispatch, wanted, asked, sent, next: 0 });
        self.fill_lanes(self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    /// The application of a stream wants one inference more, whatever it waits for already.
    pub fn ask_lanes(&mut self, stream: usize) {
        let now = self.now();
        if let Some(lanes) = self.lanes.get_mut(stream) {
            lanes.push(now);
            self.fill_lanes(stream);
        }
    }

    /// An output of a session has come.
    pub(crate) fn on_lane_output(&mut self, session: SessionId, request: u64) {
        let now = self.now();
        let Some(place) = self.place(&session.requester) else { return };
        let of = |lanes: &Lanes| {
            let lane = lanes.sessions.iter().position(|number| *number == session.number);
            lane.filter(|_| lanes.place == place)
        };
        let found = self.lanes.iter().enumerate().find_map(|(at, lanes)| Some((at, of(lanes)?)));
        let Some((stream, lane)) = found else { return };
        let lanes = &mut self.lanes[stream];
        if let Some(id) = lanes.sent.remove(&(session.number, request)) {
            lanes.asked.remove(&id);
            lanes.dispatch.done(now, u16::try_from(lane).unwrap_or(u16::MAX), id);
        }
        self.fill_lanes(stream);
    }

    fn fill_lanes(&mut self, stream: usize) {
        let now = self.now();
        let lanes = &mut self.lanes[stream];
        while lanes.asked.len() < lanes.wanted {
            lanes.push(now);
        }
        let mut commands = Vec::new();
        while let Some((id, lane)) = lanes.dispatch.next(now) {
            let number = lanes.sessions[usize::from(lane)];
            let asked = lanes.asked.get(&id).copied().unwrap_or(now);
            let session = SessionId { requester: self.peers[lanes.place].id, number };
            if let Some(request) = self.inference.add_request(&session, asked) {
                lanes.sent.insert((number, request), id);
                commands.push(Command::Infer { session: number, request });
            }
        }
        let place = lanes.place;
        for command in commands {
            self.command(place, command);
        }
    }
}

impl Lanes {
    fn push(&mut self, now: Timestamp) {
        self.asked.insert(self.next, now);
        self.dispatch.push(self.next);
        self.next += 1;
    }
}
