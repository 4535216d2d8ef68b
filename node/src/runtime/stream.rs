//! One stream of inferences over as many sessions as it has lanes.
//!
//! The protocol says which lanes there are, and which of them gets the next request. Here is what
//! needs tasks: sessions that open side by side and begin to serve as each gets ready, requests that
//! go to another lane when theirs is lost, and one session in their place when all are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use starling_engine::{Model, Tensor};
use starling_protocol::{
    NodeId,
    dispatch::Dispatch,
    model::ModelProfile,
    session::{Agreement, Planning},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::MissedTickBehavior,
};

use super::{
    clock::Clock,
    handle::{Handle, SessionRequests},
    own::{Answer, SessionNews},
};
use crate::convert;

/// A stream of inferences. Its sessions are closed when it is dropped.
pub(crate) struct Stream {
    wishes: mpsc::UnboundedSender<Wish>,
    // News are heard while inferences run, and by one listener at a time.
    news: Mutex<mpsc::UnboundedReceiver<SessionNews>>,
}

enum Wish {
    Infer { inputs: Vec<Tensor>, reply: Reply },
    Close(oneshot::Sender<()>),
}

type Reply = oneshot::Sender<Result<Answer, String>>;

impl Handle {
    /// Opens the sessions of a stream of inputs like these. Fails if the node has stopped or the
    /// model has no layers.
    pub(crate) async fn open(
        &self,
        model: &Model,
        like: &[Tensor],
        planning: Planning,
    ) -> Result<Stream, String> {
        let (wishes, wished) = mpsc::unbounded_channel();
        let (told, news) = mpsc::unbounded_channel();
        let (happened, happenings) = mpsc::unbounded_channel();
        let profile = convert::model_profile(model, like).ok_or("the model has no layers")?;
        let lanes = self.lanes(&profile, &planning).await?;
        let mut driver = Driver {
            handle: self.clone(),
            model: model.clone(),
            profile,
            clock: Clock::start(),
            planning,
            shape: if lanes.len() > 1 { Shape::Agreeing } else { Shape::One },
            lanes: BTreeMap::new(),
            opened: 0,
            failures: BTreeMap::new(),
            joined: Vec::new(),
            dispatch: Dispatch::default(),
            pending: BTreeMap::new(),
            requests: 0,
            answers: FuturesUnordered::new(),
            happened,
            told,
        };
        for lane in lanes {
            driver.open(lane).await?;
        }
        tokio::spawn(driver.run(wished, happenings));
        Ok(Stream { wishes, news: Mutex::new(news) })
    }
}

impl Stream {
    /// The next thing that happens to it; nothing when it is over.
    pub(crate) async fn next(&self) -> Option<SessionNews> {
        self.news.lock().await.recv().await
    }

    /// One inference from beginning to end.
    pub(crate) async fn run(&self, inputs: Vec<Tensor>) -> Result<Answer, String> {
        self.detached(inputs).await
    }

    /// One inference that starts now, whoever waits for it.
    pub(crate) fn detached(
        &self,
        inputs: Vec<Tensor>,
    ) -> impl Future<Output = Result<Answer, String>> + Send + 'static + use<> {
        let (reply, answer) = oneshot::channel();
        let wished = self.wishes.send(Wish::Infer { inputs, reply });
        async move {
            wished.map_err(|_| OVER)?;
            answer.await.map_err(|_| OVER)?
        }
    }

    /// Ends its sessions and gives their places back.
    pub(crate) async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.wishes.send(Wish::Close(done)).is_ok() {
            closed.await.ok();
        }
    }
}

/// What a stream's task knows.
struct Driver {
    handle: Handle,
    model: Model,
    profile: ModelProfile,
    clock: Clock,
    /// How it was asked to plan.
    planning: Planning,
    shape: Shape,
    /// By the order in which they were opened.
    lanes: BTreeMap<u16, Lane>,
    opened: u16,
    /// Lanes that were given up, by node.
    failures: BTreeMap<NodeId, u32>,
    /// What has served, by the order in which it began to.
    joined: Vec<(u16, Agreement)>,
    dispatch: Dispatch,
    pending: BTreeMap<u64, Pending>,
    requests: u64,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    happened: mpsc::UnboundedSender<(u16, SessionNews)>,
    told: mpsc::UnboundedSender<SessionNews>,
}

/// How many lanes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A session that plans for itself, and mends itself when a provider is lost.
    One,
    /// Several whose plans and places stay, some of which have not agreed yet.
    Agreeing,
    /// The same, after all have.
    Several,
}

/// Lane, request, and what came of it.
type Answered = (u16, u64, Result<Answer, String>);

struct Lane {
    session: SessionRequests,
    /// For whom it was planned, if its places stay.
    nodes: Vec<NodeId>,
    agreement: Option<Agreement>,
}

struct Pending {
    inputs: Vec<Tensor>,
    /// How many lanes have failed it.
    failures: u32,
    reply: Reply,
}

impl Driver {
    async fn run(
        mut self,
        mut wished: mpsc::UnboundedReceiver<Wish>,
        mut happenings: mpsc::UnboundedReceiver<(u16, SessionNews)>,
    ) {
        let mut growing = tokio::time::interval(GROW_EVERY);
        growing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when all that is there is in use already.
        growing.tick().await;
        let closed = loop {
            tokio::select! {
                // What happens to a lane comes before what it still answers.
                biased;
                Some((lane, news)) = happenings.recv() => self.on_news(lane, news).await,
                Some(answered) = self.answers.next() => self.on_answer(answered),
                wish = wished.recv() => match wish {
                    Some(Wish::Infer { inputs, reply }) => self.infer(inputs, reply),
                    Some(Wish::Close(done)) => break Some(done),
                    None => break None,
                },
                _ = growing.tick() => self.grow().await,
            }
            self.send();
        };
        for lane in self.lanes.into_values() {
            lane.session.close().await;
        }
        if let Some(done) = closed {
            done.send(()).ok();
        }
    }

    async fn open(&mut self, planning: Planning) -> Result<(), String> {
        let nodes = match &planning {
            Planning::Placed(_, nodes) => nodes.clone(),
            Planning::Fixed(_) | Planning::Matched(_) | Planning::By(..) => Vec::new(),
        };
        let (session, mut news) = self.handle.session(&self.model, &self.profile, planning).await?;
        let (number, happened) = (self.opened, self.happened.clone());
        self.opened += 1;
        tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                if happened.send((number, news)).is_err() {
                    return;
                }
            }
        });
        self.lanes.insert(number, Lane { session, nodes, agreement: None });
        Ok(())
    }

    fn infer(&mut self, inputs: Vec<Tensor>, reply: Reply) {
        let refusal = match self.pending.len() {
            _ if self.lanes.is_empty() => Some(OVER),
            REQUESTS_MAX.. => Some("too many requests are waiting"),
            _ => None,
        };
        if let Some(refusal) = refusal {
            reply.send(Err(refusal.to_owned())).ok();
            return;
        }
        let request = self.requests;
        self.requests += 1;
        self.pending.insert(request, Pending { inputs, failures: 0, reply });
        self.dispatch.push(request);
    }

    /// Sends what lanes have room for.
    fn send(&mut self) {
        while let Some((request, number)) = self.dispatch.next(self.clock.now()) {
            let pending = self.pending.get(&request);
            let Some((pending, lane)) = pending.zip(self.lanes.get(&number)) else { continue };
            let answer = lane.session.infer(pending.inputs.clone());
            self.answers.push(Box::pin(async move { (number, request, answer.await) }));
        }
    }

    fn on_answer(&mut self, (number, request, answer): Answered) {
        if !self.dispatch.done(self.clock.now(), number, request) {
            // Of a lane that is lost: another has the request now.
            return;
        }
        let Some(mut pending) = self.pending.remove(&request) else { return };
        if answer.is_err() && self.shape != Shape::One && pending.failures < FAILURES_MAX {
            pending.failures += 1;
            self.pending.insert(request, pending);
            self.dispatch.push(request);
            return;
        }
        let answer = answer.map(|answer| self.numbered(number, answer));
        pending.reply.send(answer).ok();
    }

    /// With its pieces' numbers among those of all lanes.
    fn numbered(&self, number: u16, mut answer: Answer) -> Answer {
        let before = self.joined.iter().take_while(|(lane, _)| *lane != number);
        let before: usize = before.map(|(_, agreement)| agreement.pieces.len()).sum();
        for timing in &mut answer.trace {
            timing.index = timing.index.saturating_add(u16::try_from(before).unwrap_or(u16::MAX));
        }
        answer
    }

    async fn on_news(&mut self, number: u16, news: SessionNews) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        match news {
            SessionNews::Agreed(agreement) if self.shape == Shape::One => {
                self.told.send(SessionNews::Agreed(agreement)).ok();
            }
            SessionNews::Agreed(agreement) => lane.agreement = Some(agreement),
            SessionNews::Ready(agreement) => self.on_ready(number, agreement),
            SessionNews::ProviderLost(node) => {
                self.told.send(SessionNews::ProviderLost(node)).ok();
                if self.shape != Shape::One {
                    self.give_up(number, "a provider was lost").await;
                }
            }
            SessionNews::Failed(reason) if self.shape == Shape::One => self.fail(&reason),
            SessionNews::Failed(reason) => self.give_up(number, &reason).await,
        }
        self.tell_agreed();
    }

    fn on_ready(&mut self, number: u16, ready: Agreement) {
        self.dispatch.open(self.clock.now(), number, ready.pieces.len(), 1.0 / ready.rate());
        match self.joined.iter_mut().find(|(lane, _)| *lane == number) {
            Some((_, agreement)) => *agreement = ready,
            None => self.joined.push((number, ready)),
        }
        if self.shape != Shape::Agreeing {
            self.tell_ready();
        }
    }

    /// Once all lanes have agreed, that is told as one agreement.
    fn tell_agreed(&mut self) {
        let agreed: Vec<&Agreement> =
            self.lanes.values().filter_map(|lane| lane.agreement.as_ref()).collect();
        if self.shape != Shape::Agreeing || agreed.len() < self.lanes.len() {
            return;
        }
        self.shape = Shape::Several;
        self.told.send(SessionNews::Agreed(Agreement::together(agreed))).ok();
        if !self.joined.is_empty() {
            self.tell_ready();
        }
    }

    fn tell_ready(&self) {
        let joined = self.joined.iter().map(|(_, agreement)| agreement);
        self.told.send(SessionNews::Ready(Agreement::together(joined))).ok();
    }

    /// Opens lanes on machines that have come, or that a lane has left behind.
    async fn grow(&mut self) {
        if self.shape != Shape::Several {
            return;
        }
        let useless = self.failures.iter().filter(|(_, failures)| **failures >= FAILURES_MAX);
        let mut taken: BTreeSet<NodeId> = useless.map(|(node, _)| *node).collect();
        taken.extend(self.lanes.values().flat_map(|lane| &lane.nodes));
        let agreed = self.lanes.values().filter_map(|lane| lane.agreement.as_ref());
        let per_s = agreed.map(Agreement::rate).sum();
        let found = self.handle.more_lanes(&self.profile, taken, per_s).await;
        for planning in found.unwrap_or_default() {
            tracing::info!(lane = self.opened, "one more lane for the stream");
            if let Err(reason) = self.open(planning).await {
                tracing::debug!(reason, "no lane opened");
            }
        }
    }

    /// A lane without one of its providers is none: the others take over what it had. When it was
    /// the last, one session takes their place.
    async fn give_up(&mut self, number: u16, reason: &str) {
        tracing::info!(lane = number, reason, "a lane of the stream is over");
        self.dispatch.close(number);
        if let Some(lane) = self.lanes.remove(&number) {
            for node in lane.nodes {
                *self.failures.entry(node).or_default() += 1;
            }
            lane.session.close().await;
        }
        if self.lanes.is_empty() {
            self.shape = Shape::One;
            if let Err(reason) = self.open(self.planning.clone()).await {
                self.fail(&reason);
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        self.lanes.clear();
        self.told.send(SessionNews::Failed(reason.to_owned())).ok();
        for request in self.dispatch.drain() {
            if let Some(pending) = self.pending.remove(&request) {
                pending.reply.send(Err(reason.to_owned())).ok();
            }
        }
    }
}

const OVER: &str = "the stream is over: the node has stopped, or nobody computes for it any more";
/// How often machines are looked for on which the stream could have another lane.
const GROW_EVERY: Duration = Duration::from_secs(5);
/// So many lanes may fail a request before that is its answer, and so many of a node's before it
/// gets no other.
const FAILURES_MAX: u32 = 3;
/// The most requests without an answer.
const REQUESTS_MAX: usize = 1024;
