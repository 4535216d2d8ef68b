//! Names of things: nodes, models, blobs, sessions and pieces.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! id_of_32_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            /// The first eight hexadecimal digits: enough for a person to tell two apart.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id_of_32_bytes! {
    /// A node: its Ed25519 public key. Who sent a message is known from the connection or the
    /// signature, so a message never states its own sender.
    NodeId
}
id_of_32_bytes! {
    /// A model: the blake3 of its ONNX file.
    ModelId
}
id_of_32_bytes! {
    /// Any bytes held by content: a weight tensor or a slice of a graph, by its blake3.
    BlobId
}

/// A session: its requester, and a number that the requester never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SessionId {
    /// Who wants the inferences.
    pub requester: NodeId,
    /// Distinguishes the sessions of one requester.
    pub number: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.requester, self.number)
    }
}

/// A piece: the unit of assignment. Its index is its place in the session's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PieceId {
    /// The session it belongs to.
    pub session: SessionId,
    /// Its place in the plan, from 0.
    pub index: u16,
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.session, self.index)
    }
}

/// A number drawn by blake3 from a piece and a provider: breaks ties between equally good
/// providers so that every node breaks them the same way, and not all of them towards one node.
#[must_use]
pub fn tie_break(piece: &PieceId, provider: &NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&piece.session.requester.0);
    hasher.update(&piece.session.number.to_le_bytes());
    hasher.update(&piece.index.to_le_bytes());
    hasher.update(&provider.0);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}
