//! A provider's side of running sessions: which pieces are loaded, for whom, and at which epoch.

use std::collections::BTreeMap;

use crate::{
    id::{BlobId, ModelId, PieceId},
    plan::{LayerRange, Piece},
    rows::RowRange,
    wire::{FailureReason, Message},
    wiring::Link,
};

/// A piece to load: everything that the engine and the tensor links need to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOrder {
    /// Which piece.
    pub piece: PieceId,
    /// Rises with every change of the session's plan.
    pub epoch: u32,
    /// Which model.
    pub model: ModelId,
    /// Its layers.
    pub layers: LayerRange,
    /// For a strip, its rows of each tensor alive after the layers; empty for all rows.
    pub rows: Vec<RowRange>,
    /// The slice of the graph.
    pub slice: BlobId,
    /// The slice's length in bytes.
    pub slice_bytes: u32,
    /// Where its inputs come from.
    pub sources: Vec<Link>,
    /// Where its outputs go.
    pub targets: Vec<Link>,
}

impl LoadOrder {
    /// What an install of this piece asks for; nothing of another message.
    #[must_use]
    pub fn new(piece: PieceId, install: &Message) -> Option<Self> {
        match install.clone() {
            Message::Install {
                epoch,
                model,
                layers,
                rows,
                slice,
                slice_bytes,
                sources,
                targets,
                ..
            } => Some(Self {
                piece,
                epoch,
                model,
                layers,
                rows,
                slice,
                slice_bytes,
                sources,
                targets,
            }),
            _ => None,
        }
    }

    /// The piece by what it computes.
    #[must_use]
    pub fn computes(&self) -> Piece {
        Piece { layers: self.layers, rows: self.rows.clone() }
    }
}

/// How far a hosted piece has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostedState {
    /// The engine is fetching and loading it.
    Loading,
    /// It takes inputs.
    Ready,
}

/// What to do on an install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallAnswer {
    /// Load it; the answer comes when the engine has.
    Load(LoadOrder),
    /// It is loaded already: say so again.
    AlreadyReady,
    /// It is on its way, or the install is of an earlier epoch: say nothing.
    Nothing,
}

/// The pieces installed here. Bounded by the book: only a piece with a place is installed.
#[derive(Clone, Debug, Default)]
pub struct Host {
    hosted: BTreeMap<PieceId, (u32, HostedState)>,
}

impl Host {
    /// An install of a piece that the book holds.
    pub fn install(&mut self, order: LoadOrder) -> InstallAnswer {
        match self.hosted.get(&order.piece) {
            Some((epoch, _)) if *epoch > order.epoch => return InstallAnswer::Nothing,
            Some((epoch, HostedState::Ready)) if *epoch == order.epoch => {
                return InstallAnswer::AlreadyReady;
            }
            Some((epoch, HostedState::Loading)) if *epoch == order.epoch => {
                return InstallAnswer::Nothing;
            }
            Some(_) | None => {}
        }
        self.hosted.insert(order.piece, (order.epoch, HostedState::Loading));
        InstallAnswer::Load(order)
    }

    /// The engine is done with a load. Says whether anyone still waits for it.
    pub fn loaded(
        &mut self,
        piece: &PieceId,
        epoch: u32,
        result: Result<(), FailureReason>,
    ) -> bool {
        let Some((current, state)) = self.hosted.get_mut(piece) else {
            return false;
        };
        if *current != epoch {
            return false;
        }
        match result {
            Ok(()) => *state = HostedState::Ready,
            Err(_) => {
                self.hosted.remove(piece);
            }
        }
        true
    }

    /// Whether a load of this piece at this epoch is still wanted. Loads may end in another order
    /// than they began in, and one that was overtaken must not take the place of a later one.
    #[must_use]
    pub fn awaits(&self, piece: &PieceId, epoch: u32) -> bool {
        self.hosted.get(piece) == Some(&(epoch, HostedState::Loading))
    }

    /// The piece has lost its place. Says whether it was installed.
    pub fn remove(&mut self, piece: &PieceId) -> bool {
        self.hosted.remove(piece).is_some()
    }

    /// Whether the piece has been installed, loaded or not.
    #[must_use]
    pub fn has(&self, piece: &PieceId) -> bool {
        self.hosted.contains_key(piece)
    }

    /// What is installed, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (&PieceId, &(u32, HostedState))> {
        self.hosted.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, SessionId};

    fn order(epoch: u32) -> LoadOrder {
        let session = SessionId { requester: NodeId([1; 32]), number: 1 };
        LoadOrder {
            piece: PieceId { session, index: 0 },
            epoch,
            model: ModelId([2; 32]),
            layers: LayerRange { first: 0, end: 1 },
            rows: Vec::new(),
            slice: BlobId([3; 32]),
            slice_bytes: 10,
            sources: Vec::new(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn installs_are_idempotent_and_ordered_by_epoch() {
        let mut host = Host::default();
        let piece = order(1).piece;
        assert_eq!(host.install(order(1)), InstallAnswer::Load(order(1)));
        assert_eq!(host.install(order(1)), InstallAnswer::Nothing);
        assert!(host.loaded(&piece, 1, Ok(())));
        assert_eq!(host.install(order(1)), InstallAnswer::AlreadyReady);
        assert_eq!(host.install(order(2)), InstallAnswer::Load(order(2)));
        assert_eq!(host.install(order(1)), InstallAnswer::Nothing);
        assert!(!host.awaits(&piece, 1) && host.awaits(&piece, 2));
        assert!(!host.loaded(&piece, 1, Ok(())), "a load that was overtaken");
        assert!(host.loaded(&piece, 2, Err(FailureReason::BadSlice)));
        assert_eq!(host.install(order(2)), InstallAnswer::Load(order(2)), "it may be tried again");
    }
}
