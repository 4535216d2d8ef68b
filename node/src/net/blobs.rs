//! Weights and graph slices, by content: ask anybody who may have a blob, and trust nobody, since
//! the bytes must hash to its name.
//!
//! The request is the 32 bytes of the name. The response is one byte (1: here it is, 0: not held),
//! the length in eight bytes, little-endian, and the bytes.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt,
    io::{AsyncReadExt, AsyncWriteExt},
};
use libp2p::{PeerId, Stream};
use libp2p_stream::{Control, IncomingStreams};
use starling_protocol::{BlobId, NodeId};
use thiserror::Error;
use tokio::{fs::File, io::AsyncWriteExt as _, sync::Semaphore, time::timeout};

use super::{
    gate::{Gate, Pass},
    io::{CHUNK, read_bytes, within, write_bytes},
    names::Names,
    swarm::NetError,
};
use crate::identity;

/// Whatever can give blobs to others. Called on a thread that may block.
pub(crate) trait BlobSource: Send + Sync + 'static {
    /// The blob's bytes, if they are here.
    fn blob(&self, id: &BlobId) -> Option<Bytes>;
}

/// Why a blob could not be fetched from one node. Another may still have it.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(io::Error),
    /// This machine can't keep it.
    #[error("can't write it to disk: {0}")]
    Disk(io::Error),
    /// It doesn't have it (any longer).
    #[error("not held there")]
    NotHeld,
    /// Nothing came for a while.
    #[error("nothing came for {} s", PROGRESS.as_secs())]
    Timeout,
    /// It says that it is longer than it can be.
    #[error("{claimed} bytes offered where {length} were expected")]
    TooLong {
        /// What the peer says.
        claimed: u64,
        /// What the caller knows.
        length: u64,
    },
    /// No stream could be opened.
    #[error("can't open a stream: {0}")]
    Unreachable(String),
    /// The bytes don't hash to the name: the peer is broken, or lies.
    #[error("wrong bytes")]
    WrongBytes,
}

/// Fetches a blob of at most `length` bytes from one node into memory, and verifies it. A node
/// serves [`SERVED_AT_ONCE`] at a time; with more fetches than that from one node at once, the last
/// may time out.
///
/// # Errors
/// If the node doesn't have it or gives other bytes; nothing of these is kept.
pub(crate) async fn fetch(
    control: &mut Control,
    swarm: &str,
    from: NodeId,
    id: BlobId,
    length: u64,
) -> Result<Bytes, FetchError> {
    let mut stream = find(control, swarm, from, id).await?;
    let length = incoming_length(&mut stream, length).await?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut hasher = blake3::Hasher::new();
    let hash = |chunk: &[u8]| {
        hasher.update(chunk);
    };
    let bytes = read_bytes(&mut stream, length, PROGRESS, hash).await?;
    if hasher.finalize() == id.0 { Ok(Bytes::from(bytes)) } else { Err(FetchError::WrongBytes) }
}

/// Fetches a blob as [`fetch`] does, but into a file, so that it never takes memory.
///
/// # Errors
/// As there, or if the file can't be written. What is in it then is of no use.
pub(crate) async fn fetch_to_file(
    control: &mut Control,
    swarm: &str,
    from: NodeId,
    id: BlobId,
    length: u64,
    file: &mut File,
) -> Result<(), FetchError> {
    let mut stream = find(control, swarm, from, id).await?;
    let mut left = incoming_length(&mut stream, length).await?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        // No more than a chunk at a time: a system that gives a process a share of a processor
        // makes up for a long call by stopping the whole process for as long as five or ten such.
        let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let part = &mut chunk[..part];
        within(PROGRESS, "bytes", stream.read_exact(part)).await?;
        hasher.update(part);
        file.write_all(part).await.map_err(FetchError::Disk)?;
        left -= part.len() as u64;
    }
    file.flush().await.map_err(FetchError::Disk)?;
    if hasher.finalize() == id.0 { Ok(()) } else { Err(FetchError::WrongBytes) }
}

/// A stream on which a node is about to say how long the blob is.
async fn find(
    control: &mut Control,
    swarm: &str,
    from: NodeId,
    id: BlobId,
) -> Result<Stream, FetchError> {
    let peer = identity::peer_id(&from)
        .ok_or_else(|| FetchError::Unreachable(format!("{from} is no public key")))?;
    let names = Names::new(swarm);
    let mut pause = RETRY_PAUSE;
    let mut attempt = 1;
    let (stream, found) = loop {
        let mut stream = open(control, &names, peer).await?;
        match ask(&mut stream, &id).await {
            Ok(found) => break (stream, found),
            // The stream's name is agreed with the first bytes: it is none of the other side's.
            Err(FetchError::Broken(error)) if error.kind() == io::ErrorKind::Other => {
                return Err(FetchError::Unreachable(error.to_string()));
            }
            // A stream that comes while the other side's accept loop is busy ends like this.
            Err(FetchError::Broken(error)) if attempt < ATTEMPTS => {
                tracing::debug!(%from, %id, %error, "stream not taken, opening another");
                tokio::time::sleep(pause).await;
                (attempt, pause) = (attempt + 1, (pause * 2).min(RETRY_PAUSE_MAX));
            }
            Err(error) => return Err(error),
        }
    };
    if found { Ok(stream) } else { Err(FetchError::NotHeld) }
}

/// Starts to serve what `source` has. Must be called inside a tokio runtime.
///
/// # Errors
/// If it has been called before on the same swarm.
pub(crate) fn serve(
    mut control: Control,
    swarm: &str,
    source: Arc<dyn BlobSource>,
) -> Result<(), NetError> {
    let incoming = control.accept(Names::new(swarm).blob()).map_err(|_| NetError::Twice)?;
    tokio::spawn(accept(incoming, source));
    Ok(())
}

async fn open(control: &mut Control, names: &Names, peer: PeerId) -> Result<Stream, FetchError> {
    // libp2p's own waiting has no end when a dial gets lost.
    match timeout(CONNECT, control.open_stream(peer, names.blob())).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(FetchError::Unreachable(error.to_string())),
        Err(_) => Err(FetchError::Unreachable(format!("no answer in {} s", CONNECT.as_secs()))),
    }
}

async fn ask(stream: &mut Stream, id: &BlobId) -> Result<bool, FetchError> {
    let asked = async {
        stream.write_all(&id.0).await?;
        stream.flush().await?;
        let mut found = [0];
        stream.read_exact(&mut found).await?;
        Ok(found[0])
    };
    Ok(within(PROGRESS, "answer", asked).await? == FOUND)
}

/// How long the peer says that the blob is, which is at most `length`.
async fn incoming_length(stream: &mut Stream, length: u64) -> Result<u64, FetchError> {
    let mut claimed = [0; 8];
    within(PROGRESS, "length", stream.read_exact(&mut claimed)).await?;
    let claimed = u64::from_le_bytes(claimed);
    if claimed > length { Err(FetchError::TooLong { claimed, length }) } else { Ok(claimed) }
}

async fn accept(mut incoming: IncomingStreams, source: Arc<dyn BlobSource>) {
    let gate = Gate::new(STREAMS_PER_PEER, STREAMS_MAX);
    let turns = Arc::new(Semaphore::new(SERVED_AT_ONCE));
    while let Some((peer, stream)) = incoming.next().await {
        let Some(to) = identity::node_id(&peer) else { continue };
        match gate.enter(to) {
            Some(pass) => {
                let (turns, source) = (turns.clone(), source.clone());
                tokio::spawn(answer(to, stream, pass, turns, source));
            }
            None => tracing::debug!(%to, "too many blob streams, refusing one"),
        }
    }
}

async fn answer(
    to: NodeId,
    mut stream: Stream,
    _pass: Pass,
    turns: Arc<Semaphore>,
    source: Arc<dyn BlobSource>,
) {
    if let Err(error) = give(&mut stream, &turns, source).await {
        tracing::debug!(%to, %error, "no blob given");
    }
}

async fn give(
    stream: &mut Stream,
    turns: &Semaphore,
    source: Arc<dyn BlobSource>,
) -> io::Result<()> {
    let mut id = [0; 32];
    within(PROGRESS, "request", stream.read_exact(&mut id)).await?;
    let _turn = turns.acquire().await.map_err(io::Error::other)?;
    // The source may read from disk.
    let blob = tokio::task::spawn_blocking(move || source.blob(&BlobId(id)));
    let Some(blob) = blob.await.map_err(io::Error::other)? else {
        write_bytes(stream, &[NOT_HELD], PROGRESS, |_| {}).await?;
        return within(PROGRESS, "end", stream.close()).await;
    };
    let mut head = [FOUND; 9];
    head[1..].copy_from_slice(&(blob.len() as u64).to_le_bytes());
    write_bytes(stream, &head, PROGRESS, |_| {}).await?;
    write_bytes(stream, &blob, PROGRESS, |_| {}).await?;
    within(PROGRESS, "end", stream.close()).await
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Broken(error) }
    }
}

/// Blobs that a node gives out at a time; the others wait their turn. Enough for several slow nodes
/// that have their four each to hold up nobody else: a blob is in a file or in the model, and takes
/// a chunk of memory on its way out.
pub(crate) const SERVED_AT_ONCE: usize = 64;
const STREAMS_PER_PEER: usize = 16;
const STREAMS_MAX: usize = 128;
const NOT_HELD: u8 = 0;
const FOUND: u8 = 1;
const CONNECT: Duration = Duration::from_secs(5);
const PROGRESS: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 12;
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
