//! The receiving end: accepts streams, reads frames, gives credits.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
};
use libp2p::Stream;
use libp2p_stream::IncomingStreams;
use starling_protocol::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::TensorConfig;
use crate::{
    identity,
    net::{
        frame::{CHECKSUM_BYTES, FIXED_BYTES, Frame, FrameError, Head},
        gate::{Gate, Pass},
        io::{invalid, read_bytes, within},
    },
};

/// A frame that has come in whole.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Who sent it: the peer of the connection.
    pub(crate) from: NodeId,
    /// What it sent.
    pub(crate) frame: Frame,
    /// From the first byte to the last, without the time that this node made it wait.
    pub(crate) transfer: Duration,
    /// How many bytes of data these were.
    pub(crate) bytes: u64,
    /// The sender's right to send another one: drop it when the frame is done with.
    pub(crate) credit: Credit,
}

/// The right to send one frame. It returns to the sender when this is dropped.
#[derive(Debug)]
pub(crate) struct Credit {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Local { _permit: OwnedSemaphorePermit },
    Remote { _credit: RemoteCredit },
}

#[derive(Debug)]
struct RemoteCredit {
    outstanding: Arc<AtomicUsize>,
    returned: mpsc::Sender<()>,
    _room: OwnedSemaphorePermit,
}

impl Arrival {
    /// A frame of this node to itself.
    pub(super) fn local(node: NodeId, frame: Frame, credit: Credit) -> Self {
        let bytes = frame.data_bytes();
        Self { from: node, frame, transfer: Duration::ZERO, bytes, credit }
    }
}

impl Credit {
    pub(super) fn local(permit: OwnedSemaphorePermit) -> Self {
        Self { _held: Held::Local { _permit: permit } }
    }
}

impl Drop for RemoteCredit {
    fn drop(&mut self) {
        // First the count, then the news of it: the sender may use the credit at once.
        self.outstanding.fetch_sub(1, Ordering::SeqCst);
        // Fails only if the stream is gone; never full, as it holds a whole window.
        let _ = self.returned.try_send(());
    }
}

/// Takes in the streams of all peers.
#[derive(Clone)]
pub(super) struct Acceptor {
    config: TensorConfig,
    gate: Gate,
    arrivals: mpsc::Sender<Arrival>,
    /// Room for frames, in KiB.
    room: Arc<Semaphore>,
    room_max: u32,
}

impl Acceptor {
    pub(super) fn new(config: TensorConfig, gate: Gate, arrivals: mpsc::Sender<Arrival>) -> Self {
        let room_max = u32::try_from(config.bytes_max / 1024).unwrap_or(u32::MAX).max(1);
        let room = Arc::new(Semaphore::new(room_max as usize));
        Self { config, gate, arrivals, room, room_max }
    }

    /// Does nothing itself but hand streams out, since libp2p drops those that come meanwhile.
    pub(super) async fn run(self, mut incoming: IncomingStreams) {
        loop {
            let next = tokio::select! {
                next = incoming.next() => next,
                // Nobody takes arrivals any longer: then better say so than take more.
                () = self.arrivals.closed() => None,
            };
            let Some((peer, stream)) = next else { return };
            let Some(from) = identity::node_id(&peer) else { continue };
            match self.gate.enter(from) {
                Some(pass) => drop(tokio::spawn(self.clone().serve(from, stream, pass))),
                None => tracing::debug!(%from, "too many tensor streams, refusing one"),
            }
        }
    }

    async fn serve(self, from: NodeId, stream: Stream, _pass: Pass) {
        let (reader, writer) = stream.split();
        let (returned, returns) = mpsc::channel(usize::from(self.config.window));
        let ended = tokio::select! {
            ended = self.receive(from, BufReader::with_capacity(BUFFER_BYTES, reader), returned) => ended,
            ended = give_credits(writer, self.config.window, returns) => ended,
        };
        match ended {
            Ok(()) => tracing::debug!(%from, "tensor stream ended"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%from, %error, "refused a frame, closing the stream");
            }
            Err(error) => tracing::debug!(%from, %error, "tensor stream broke"),
        }
    }

    async fn receive(
        &self,
        from: NodeId,
        mut reader: Reader,
        returned: mpsc::Sender<()>,
    ) -> io::Result<()> {
        let outstanding = Arc::new(AtomicUsize::new(0));
        // Between frames a stream may be silent as long as it likes.
        while !Pin::new(&mut reader).fill_buf().await?.is_empty() {
            if outstanding.load(Ordering::SeqCst) >= usize::from(self.config.window) {
                return Err(invalid("a frame without a credit"));
            }
            let (frame, bytes, transfer, room) = self.read_frame(&mut reader).await?;
            outstanding.fetch_add(1, Ordering::SeqCst);
            let credit = RemoteCredit {
                outstanding: outstanding.clone(),
                returned: returned.clone(),
                _room: room,
            };
            let credit = Credit { _held: Held::Remote { _credit: credit } };
            let arrival = Arrival { from, frame, transfer, bytes, credit };
            if self.arrivals.send(arrival).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn read_frame(
        &self,
        reader: &mut Reader,
    ) -> io::Result<(Frame, u64, Duration, OwnedSemaphorePermit)> {
        let progress = self.config.progress_timeout;
        let start = Instant::now();
        let mut hasher = crc32fast::Hasher::new();
        let head = read_head(reader, progress, &mut hasher).await?;
        let head_time = start.elapsed();
        let room = self.make_room(head.data_bytes()).await?;
        let start = Instant::now();
        let hash = |chunk: &[u8]| {
            hasher.update(chunk);
        };
        let data = read_bytes(reader, head.wire_bytes(), progress, hash).await?;
        let mut checksum = [0; CHECKSUM_BYTES];
        within(progress, "bytes", reader.read_exact(&mut checksum)).await?;
        let transfer = head_time + start.elapsed();
        if checksum != hasher.finalize().to_le_bytes() {
            return Err(invalid(FrameError::Checksum));
        }
        let bytes = data.len() as u64;
        let frame = head.into_frame(Bytes::from(data)).map_err(invalid)?;
        Ok((frame, bytes, transfer, room))
    }

    /// Waits until the frames that are here leave room for one more.
    async fn make_room(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        // A frame larger than the whole room gets all of it, rather than waiting for ever.
        let room = self.room.clone().acquire_many_owned(kib.min(self.room_max));
        room.await.map_err(io::Error::other)
    }
}

type Reader = BufReader<ReadHalf<Stream>>;

async fn read_head(
    reader: &mut Reader,
    progress: Duration,
    hasher: &mut crc32fast::Hasher,
) -> io::Result<Head> {
    let mut fixed = [0; FIXED_BYTES];
    within(progress, "bytes", reader.read_exact(&mut fixed)).await?;
    let mut rest = vec![0; Head::rest_bytes(&fixed).map_err(invalid)?];
    within(progress, "bytes", reader.read_exact(&mut rest)).await?;
    hasher.update(&fixed);
    hasher.update(&rest);
    Head::decode(&fixed, &rest).map_err(invalid)
}

/// First the window, then credits as they come back, half a window of them in a byte: one on its
/// own costs both processors as much as a small frame. Whoever has sent a whole window waits for two
/// frames then instead of one.
async fn give_credits(
    mut writer: WriteHalf<Stream>,
    window: u8,
    mut returns: mpsc::Receiver<()>,
) -> io::Result<()> {
    writer.write_all(&[window]).await?;
    writer.flush().await?;
    let mut credits = 0;
    while let Some(()) = returns.recv().await {
        credits += 1;
        if credits >= window.div_ceil(2) {
            writer.write_all(&[credits]).await?;
            writer.flush().await?;
            credits = 0;
        }
    }
    Ok(())
}

/// Large enough for the head of a frame and for small frames; larger reads bypass it.
const BUFFER_BYTES: usize = 16 * 1024;
