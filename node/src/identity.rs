//! Who this node is: one Ed25519 key pair, kept in the data directory. The protocol knows a node
//! by the raw public key, libp2p by a `PeerId` that wraps the same 32 bytes; the two functions
//! here turn one into the other without asking anybody.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};
use starling_protocol::NodeId;
use thiserror::Error;

/// Why a node has no identity. Always something of this machine, never of a peer.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// The file is there, but it isn't a key.
    #[error(
        "{path} is not a Starling identity ({reason}). Put back a copy of it, or move it away: \
         the node then starts with a new identity"
    )]
    Junk {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file can't be read or written.
    #[error("can't read or write the identity {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The identity in `dir`, made there first if there is none.
///
/// # Errors
/// If the file can't be read or written, or holds something else.
pub(crate) fn load_or_create(dir: &Path) -> Result<Keypair, IdentityError> {
    let path = dir.join(FILE);
    let fail = |source| IdentityError::Io { path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(fail)?;
            let fresh = Keypair::generate_ed25519();
            match write(dir, &path, &fresh) {
                Ok(()) => Ok(fresh),
                // Another process was faster: then both use its key.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    parse(&path, &fs::read(&path).map_err(fail)?)
                }
                Err(error) => Err(fail(error)),
            }
        }
        Err(error) => Err(fail(error)),
    }
}

/// The node behind a libp2p name; nothing if its key isn't an Ed25519 one.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    let multihash = peer.as_ref();
    if multihash.code() != MULTIHASH_IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The libp2p name of a node; nothing if the bytes are no point of the curve.
pub(crate) fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Keypair, IdentityError> {
    let junk = |reason: String| IdentityError::Junk { path: path.to_owned(), reason };
    let pair = Keypair::from_protobuf_encoding(bytes).map_err(|error| junk(error.to_string()))?;
    // Another type of key would do for libp2p, but has no place in a `NodeId`.
    if node_id(&pair.public().to_peer_id()).is_none() {
        return Err(junk("not an Ed25519 key".to_owned()));
    }
    Ok(pair)
}

/// Written aside and then linked into place, so that nobody ever sees half a key. Temporary files
/// are made with mode 0600.
fn write(dir: &Path, path: &Path, pair: &Keypair) -> io::Result<()> {
    let bytes = pair.to_protobuf_encoding().map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    Ok(())
}

const FILE: &str = "identity.key";
/// The multihash code of "the digest is the data itself", which short public keys use.
const MULTIHASH_IDENTITY: u64 = 0;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn the_key_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(&dir.path().join("data")).unwrap();
        let second = load_or_create(&dir.path().join("data")).unwrap();
        assert_eq!(first.public(), second.public());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn junk_is_named_and_kept() {
        for junk in [&b""[..], b"junk", &[0xff; 4096]] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), junk).unwrap();
            let error = load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Junk { .. }));
            assert!(error.to_string().contains("move it away"), "{error}");
            assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), junk);
        }
    }

    #[test]
    fn node_and_peer_ids_are_the_same_32_bytes() {
        let pair = Keypair::generate_ed25519();
        let peer = pair.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(node.0, pair.public().try_into_ed25519().unwrap().to_bytes());
        assert_eq!(peer_id(&node), Some(peer));
    }

    #[test]
    fn names_without_a_key_are_no_nodes() {
        assert_eq!(node_id(&PeerId::random()), None);
        // About half of all 32-byte strings are no compressed points.
        let refused = (0..=255).filter(|byte| peer_id(&NodeId([*byte; 32])).is_none()).count();
        assert!(refused > 0);
    }
}
