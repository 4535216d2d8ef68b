//! What can happen to a node, and what it wants done.

use crate::{
    host::LoadOrder,
    id::{BlobId, ModelId, NodeId, PieceId},
    model::{ModelProfile, Work},
    plan::Plan,
    session::{Agreement, Planning, SessionError},
    wire::{Advert, FailureReason, Message},
    wiring::Link,
};

/// What can happen to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Only time has passed.
    Tick,
    /// A signed advert, and its author.
    Advert {
        /// Its author.
        from: NodeId,
        /// What it says.
        advert: Advert,
    },
    /// A market message.
    Message {
        /// Its sender, known from the connection.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Gossip now reaches this node.
    Joined(NodeId),
    /// The last connection to this node has closed.
    Left(NodeId),
    /// The application's wish.
    Command(Command),
    /// The graph was cut as [`Output::Slice`] asked.
    Sliced {
        /// The session's number.
        session: u64,
        /// The plan that was cut.
        plan: Plan,
        /// Blob and length of each piece's slice.
        slices: Vec<(BlobId, u32)>,
    },
    /// A [`LoadOrder`] was carried out, or could not be.
    Loaded {
        /// Which piece.
        piece: PieceId,
        /// Of the order.
        epoch: u32,
        /// Whether it runs.
        result: Result<(), FailureReason>,
    },
    /// A hosted piece's output could not be passed on.
    EdgeFailed {
        /// Which piece.
        piece: PieceId,
        /// Of its order.
        epoch: u32,
    },
    /// A piece was run: what it did and how long that took with the machine to itself.
    Ran {
        /// What it did.
        work: Work,
        /// Seconds of compute, without waiting.
        seconds: f64,
    },
    /// The output of a request has arrived here.
    OutputArrived {
        /// The session's number.
        session: u64,
        /// Which request.
        request: u64,
        /// What each piece took, as its provider says.
        runs: Vec<PieceRun>,
    },
    /// The link was measured: bytes per second.
    Bandwidth(u64),
    /// Where this node can be dialled now.
    Addresses(Vec<Vec<u8>>),
    /// Of which models it holds weights now.
    Models(Vec<ModelId>),
}

/// One piece's part in one inference, as its provider reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PieceRun {
    /// The piece's place in the plan.
    pub index: u16,
    /// Who computed it.
    pub provider: NodeId,
    /// Seconds of compute, without waiting.
    pub seconds: f64,
}

/// The application's wishes.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open a session under a number never used before.
    Open {
        /// The number.
        session: u64,
        /// The model's costs.
        profile: ModelProfile,
        /// How to plan.
        planning: Planning,
    },
    /// Run one inference. The caller keeps the input until the output has arrived.
    Infer {
        /// The session's number.
        session: u64,
        /// A number that rises within the session.
        request: u64,
    },
    /// End a session and give its places back.
    Close {
        /// The session's number.
        session: u64,
    },
    /// Leave the flock: give back and tell everyone.
    Leave,
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Gossip this.
    Publish(Advert),
    /// Send this, over request-response.
    Send {
        /// To whom; never to the node itself.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Cut the session's graph like this, and answer with [`Input::Sliced`].
    Slice {
        /// The session's number.
        session: u64,
        /// The plan.
        plan: Plan,
    },
    /// Fetch, verify and load a piece, and answer with [`Input::Loaded`].
    Load(LoadOrder),
    /// Drop a piece.
    Unload(PieceId),
    /// From now on, a session's inputs go to these pieces and its outputs come from those.
    Wire {
        /// The session's number.
        session: u64,
        /// Of the plan in force.
        epoch: u32,
        /// Where the inputs go; possibly to the node itself.
        inputs: Vec<Link>,
        /// Where the outputs come from.
        outputs: Vec<Link>,
    },
    /// Send a request's input as [`Output::Wire`] said.
    SendInput {
        /// The session's number.
        session: u64,
        /// Of the plan in force.
        epoch: u32,
        /// Which request.
        request: u64,
    },
    /// A session's pieces changed; consumed by the node itself, which advertises them.
    SessionChanged {
        /// The session's number.
        session: u64,
    },
    /// A session stalled with this provider in its plan; consumed by the node itself.
    Suspect {
        /// Who.
        node: NodeId,
    },
    /// Tell the application.
    Event(Event),
}

/// What the application may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The auction of a session has settled.
    Agreed {
        /// The session's number.
        session: u64,
        /// Who, what and at what price.
        agreement: Agreement,
    },
    /// All pieces are loaded; requests flow.
    Ready {
        /// The session's number.
        session: u64,
        /// Rises at every change of plan.
        epoch: u32,
        /// Who and what, with the shares known now.
        agreement: Agreement,
    },
    /// Pieces of a running session have moved to providers that serve them better.
    Moved {
        /// The session's number.
        session: u64,
        /// How many.
        pieces: usize,
    },
    /// A provider of the session is gone; its pieces bid again.
    ProviderLost {
        /// The session's number.
        session: u64,
        /// Who.
        node: NodeId,
    },
    /// There were too many requests; this one was not taken.
    Refused {
        /// The session's number.
        session: u64,
        /// Which request.
        request: u64,
    },
    /// The session is over, and why. Its requests get no outputs.
    Failed {
        /// The session's number.
        session: u64,
        /// Why.
        error: SessionError,
    },
}
