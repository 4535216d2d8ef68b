//! The sending end of one stream.

use std::{io, sync::Arc, time::Duration};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufWriter, WriteHalf};
use libp2p::{PeerId, Stream};
use starling_protocol::NodeId;
use tokio::{sync::Semaphore, task::AbortHandle, time::timeout};

use super::{SendError, Shared, TensorConfig};
use crate::{
    identity,
    net::{
        frame::Encoded,
        io::{invalid, within, write_bytes},
    },
};

/// An open stream to one node, between two frames.
pub(super) struct Link {
    writer: BufWriter<WriteHalf<Stream>>,
    /// Closed by the reader when the stream breaks.
    credits: Arc<Semaphore>,
    reader: AbortHandle,
}

impl Link {
    /// Opens a stream to `to`, connecting first if need be.
    pub(super) async fn open(shared: &Shared, to: NodeId) -> Result<Self, SendError> {
        let peer = identity::peer_id(&to);
        let peer = peer.ok_or_else(|| SendError::Open(format!("{to} is no public key")))?;
        let limit = shared.config.open_timeout;
        // libp2p's own waiting has no end when a dial gets lost.
        match timeout(limit, Self::open_patiently(shared, peer)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::Open(format!("no answer in {} s", limit.as_secs_f32()))),
        }
    }

    async fn open_patiently(shared: &Shared, peer: PeerId) -> Result<Self, SendError> {
        let mut pause = RETRY_PAUSE;
        loop {
            let stream = shared.control.clone().open_stream(peer, shared.protocol.clone()).await;
            let stream = stream.map_err(|error| SendError::Open(error.to_string()))?;
            match Self::greet(stream).await {
                Ok(link) => return Ok(link),
                // The other side's accept loop was busy, or it has all the streams it takes.
                Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                    tracing::debug!(%peer, %error, "stream not taken, opening another");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(SendError::Broken(error)),
            }
        }
    }

    async fn greet(stream: Stream) -> io::Result<Self> {
        let (mut reader, writer) = stream.split();
        let mut window = [0];
        reader.read_exact(&mut window).await?;
        if window[0] == 0 {
            return Err(invalid("a window of no frames"));
        }
        let window = usize::from(window[0]);
        let credits = Arc::new(Semaphore::new(window));
        let reader = tokio::spawn(take_credits(reader, credits.clone(), window)).abort_handle();
        Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, writer), credits, reader })
    }

    /// Whether the other side still reads, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.credits.is_closed()
    }

    /// Sends one frame. If this fails or is dropped half-way, the link must be dropped too.
    pub(super) async fn send(
        &mut self,
        frame: &Encoded,
        config: &TensorConfig,
    ) -> Result<(), SendError> {
        let limit = config.credit_timeout;
        let credit = timeout(limit, self.credits.acquire()).await;
        let credit = credit.map_err(|_| SendError::NoCredit(limit))?;
        let closed = || io::Error::new(io::ErrorKind::ConnectionReset, "closed by the receiver");
        // The receiver gives it back, not this side.
        credit.map_err(|_| SendError::Broken(closed()))?.forget();
        let written = write_frame(&mut self.writer, frame, config.progress_timeout);
        written.await.map_err(SendError::Broken)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader holds the other half of the stream, which closes only with both.
        self.reader.abort();
    }
}

async fn write_frame(
    writer: &mut BufWriter<WriteHalf<Stream>>,
    frame: &Encoded,
    progress: Duration,
) -> io::Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    let mut hash = |chunk: &[u8]| {
        hasher.update(chunk);
    };
    write_bytes(writer, &frame.head, progress, &mut hash).await?;
    for data in &frame.data {
        write_bytes(writer, data, progress, &mut hash).await?;
    }
    write_bytes(writer, &hasher.finalize().to_le_bytes(), progress, |_| {}).await?;
    within(progress, "room for bytes", writer.flush()).await
}

/// Takes credits in until the stream ends, and closes the semaphore then.
async fn take_credits<R: AsyncRead + Unpin>(mut reader: R, credits: Arc<Semaphore>, window: usize) {
    let mut given = [0; 16];
    loop {
        let count = match reader.read(&mut given).await {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(%error, "tensor stream broke");
                break;
            }
        };
        let sum = given[..count].iter().map(|credits| usize::from(*credits)).sum::<usize>();
        // All credits together are never more than the window: one that gives more is not to be
        // trusted with any.
        if credits.available_permits() + sum > window {
            tracing::debug!(sum, window, "more credits than frames, closing the tensor stream");
            break;
        }
        credits.add_permits(sum);
    }
    credits.close();
}

/// Small frames go out in one write; larger ones bypass the buffer.
const BUFFER_BYTES: usize = 64 * 1024;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credits_beyond_the_window_close_the_link() {
        for (given, left) in
            [(&[1, 1][..], 4), (&[2], 4), (&[3], 2), (&[1, 1, 1], 2), (&[255; 16], 2)]
        {
            let credits = Arc::new(Semaphore::new(2));
            take_credits(given, credits.clone(), 4).await;
            assert!(credits.is_closed());
            assert_eq!(credits.available_permits(), left, "{given:?}");
        }
    }
}
