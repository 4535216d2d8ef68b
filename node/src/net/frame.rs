//! The layout of a frame of activations, apart from all I/O, so that it can be fuzzed.
//!
//! | bytes | what |
//! |---|---|
//! | 64 | magic, session, epoch, request, index, how many of each of the following, sender |
//! | 46 each | timings: one for each piece that the request has passed |
//! | 37 each | shapes: rank, then eight dimensions, those beyond the rank zero; then the bytes that the tensor is packed in, or zero where it is not |
//! | as many as that, or 4 per element | the tensors, one after the other, little-endian, or as [`pack`] has them |
//! | 4 | CRC-32 of all before |
//!
//! All numbers are little-endian. Every length follows from the first 64 bytes and what comes with
//! the shapes; none is stated twice, so none can contradict another.
//!
//! Why no more than a CRC: the transports authenticate every packet, so this only has to catch what
//! happens before encryption and after decryption (memory, our own mistakes). A blake3 of all
//! frames took a tenth of the processor's time of a provider whose layers are quick.

use bytes::Bytes;
use starling_protocol::{NodeId, SessionId, plan::PIECES_MAX};
use thiserror::Error;

use super::pack::{self, PackError};

/// [`Frame::index`] of results, which are for the requester itself.
pub(crate) const RESULT: u16 = u16::MAX;

/// What one piece passes to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Whose inference it is.
    pub(crate) session: SessionId,
    /// Of the plan; frames of earlier plans are for nobody.
    pub(crate) epoch: u32,
    /// Which inference of the session.
    pub(crate) request: u64,
    /// The piece that it is from, or [`REQUESTER`](starling_protocol::wiring::REQUESTER).
    pub(crate) sender: u16,
    /// The piece that it is for, or [`RESULT`].
    pub(crate) index: u16,
    /// Where the time went so far.
    pub(crate) trace: Vec<Timing>,
    /// The frontier.
    pub(crate) tensors: Vec<TensorBytes>,
}

/// What one piece cost one inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// The piece.
    pub(crate) index: u16,
    /// Who computed it.
    pub(crate) node: NodeId,
    /// Reading the frame's body off the wire.
    pub(crate) transfer_us: u32,
    /// Waiting for the processor.
    pub(crate) queue_us: u32,
    /// Computing.
    pub(crate) compute_us: u32,
}

/// A tensor on the wire: little-endian `f32`s in row-major order. No alignment is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorBytes {
    /// Its dimensions.
    pub(crate) shape: Vec<u32>,
    /// Its elements; exactly as many as the shape says.
    pub(crate) data: Bytes,
}

/// Why a frame is none. Found on arrival it is the sender's fault, on sending this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    /// The bytes on the way differ from those that were sent.
    #[error("the checksum doesn't fit")]
    Checksum,
    /// More or fewer data than the shape says.
    #[error("data of another length than the shape says")]
    DataLength,
    /// It doesn't start like a frame.
    #[error("not a frame")]
    Magic,
    /// What a tensor is packed in is no packed tensor, or longer than the tensor.
    #[error(transparent)]
    Packed(#[from] PackError),
    /// Dimensions beyond the rank.
    #[error("a shape with rubbish after its end")]
    Padding,
    /// More dimensions than any tensor has.
    #[error("a tensor of more than {RANK_MAX} dimensions")]
    Rank,
    /// Too many bytes.
    #[error("over {FRAME_BYTES_MAX} bytes of data")]
    TooLarge,
    /// Too many tensors.
    #[error("over {TENSORS_MAX} tensors")]
    TooManyTensors,
    /// Too many timings.
    #[error("over {PIECES_MAX} timings")]
    TooManyTimings,
    /// The bytes end before the frame does.
    #[error("cut short")]
    Truncated,
}

/// Everything of a frame but its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    session: SessionId,
    epoch: u32,
    request: u64,
    sender: u16,
    index: u16,
    trace: Vec<Timing>,
    tensors: Vec<Announced>,
}

/// A tensor that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Announced {
    shape: Vec<u32>,
    /// The bytes that it is packed in; none if it is not.
    packed: Option<u32>,
}

/// A frame as it goes over the wire.
pub(crate) struct Encoded {
    /// What comes before the data.
    pub(crate) head: Vec<u8>,
    /// The data, tensor by tensor.
    pub(crate) data: Vec<Bytes>,
}

impl Frame {
    /// The bytes that go over the wire, but for the checksum.
    ///
    /// # Errors
    /// If the frame breaks a limit or a tensor's data don't fit its shape.
    pub(crate) fn encode(&self) -> Result<Encoded, FrameError> {
        self.check()?;
        let packed = self.tensors.iter().map(|tensor| pack::pack(&tensor.data).map(Bytes::from));
        let packed: Vec<Option<Bytes>> = packed.collect();
        let head = self.encode_head(&packed);
        let data = packed.into_iter().zip(&self.tensors);
        let data = data.map(|(packed, tensor)| packed.unwrap_or_else(|| tensor.data.clone()));
        Ok(Encoded { head, data: data.collect() })
    }

    /// Whether it may be sent.
    ///
    /// # Errors
    /// If it breaks a limit or a tensor's data don't fit its shape.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        check_counts(self.trace.len(), self.tensors.len())?;
        let mut total = 0u64;
        for tensor in &self.tensors {
            let length = data_bytes(&tensor.shape)?;
            if length != tensor.data.len() as u64 {
                return Err(FrameError::DataLength);
            }
            total += length;
        }
        if total > FRAME_BYTES_MAX { Err(FrameError::TooLarge) } else { Ok(()) }
    }

    fn encode_head(&self, packed: &[Option<Bytes>]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(head_bytes(self.trace.len(), self.tensors.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.session.requester.0);
        bytes.extend_from_slice(&self.session.number.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.request.to_le_bytes());
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(&(self.trace.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.tensors.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.sender.to_le_bytes());
        self.trace.iter().for_each(|timing| timing.append(&mut bytes));
        for (tensor, packed) in self.tensors.iter().zip(packed) {
            append_shape(&mut bytes, &tensor.shape);
            let packed = packed.as_ref().map_or(0, Bytes::len) as u32;
            bytes.extend_from_slice(&packed.to_le_bytes());
        }
        bytes
    }

    /// The bytes of the tensors together.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.data.len() as u64).sum()
    }
}

impl Head {
    /// How many bytes follow the first [`FIXED_BYTES`] before the data.
    ///
    /// # Errors
    /// If these aren't the first bytes of a frame, or one beyond the limits.
    pub(crate) fn rest_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<usize, FrameError> {
        let (timings, tensors) = counts(fixed)?;
        Ok(head_bytes(timings, tensors) - FIXED_BYTES)
    }

    /// The head that the bytes are.
    ///
    /// # Errors
    /// If they are none. Total on any bytes.
    pub(crate) fn decode(fixed: &[u8; FIXED_BYTES], rest: &[u8]) -> Result<Head, FrameError> {
        let (timings, tensors) = counts(fixed)?;
        let sender = Cursor(&fixed[SENDER_AT..]).u16()?;
        let mut fixed = Cursor(&fixed[MAGIC.len()..]);
        let session = SessionId { requester: NodeId(fixed.take()?), number: fixed.u64()? };
        let (epoch, request, index) = (fixed.u32()?, fixed.u64()?, fixed.u16()?);
        let mut rest = Cursor(rest);
        let trace = (0..timings).map(|_| Timing::read(&mut rest)).collect::<Result<_, _>>()?;
        let tensors = (0..tensors).map(|_| Announced::read(&mut rest)).collect::<Result<_, _>>()?;
        let head = Head { session, epoch, request, sender, index, trace, tensors };
        head.total_bytes()?;
        Ok(head)
    }

    /// The bytes of the tensors together.
    pub(crate) fn data_bytes(&self) -> usize {
        self.total_bytes().expect("checked when it was decoded") as usize
    }

    /// The bytes of data that follow.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.tensors.iter().map(Announced::wire_bytes).sum()
    }

    /// The whole frame. The tensors that are not packed share `data`, which must be as long as
    /// announced.
    ///
    /// # Errors
    /// If it is not, or what is to be packed is not.
    pub(crate) fn into_frame(self, mut data: Bytes) -> Result<Frame, FrameError> {
        if data.len() != self.wire_bytes() {
            return Err(FrameError::DataLength);
        }
        let Head { session, epoch, request, sender, index, trace, tensors: announced } = self;
        let mut tensors = Vec::with_capacity(announced.len());
        for tensor in announced {
            let (raw_bytes, wire) = (tensor.raw_bytes(), data.split_to(tensor.wire_bytes()));
            let data = match tensor.packed {
                Some(_) => Bytes::from(pack::unpack(&wire, raw_bytes)?),
                None => wire,
            };
            tensors.push(TensorBytes { shape: tensor.shape, data });
        }
        Ok(Frame { session, epoch, request, sender, index, trace, tensors })
    }

    fn total_bytes(&self) -> Result<u64, FrameError> {
        let mut total = 0;
        for tensor in &self.tensors {
            // Each is at most the limit, and there are few: the sum can't overflow.
            total += data_bytes(&tensor.shape)?;
        }
        if total > FRAME_BYTES_MAX { Err(FrameError::TooLarge) } else { Ok(total) }
    }
}

/// The frame that `bytes` are, from the first to the last: what the streams do piecemeal.
///
/// # Errors
/// If they are none. Total on any bytes.
#[cfg(test)]
pub(crate) fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    let fixed = bytes.first_chunk::<FIXED_BYTES>().ok_or(FrameError::Truncated)?;
    let rest_end = FIXED_BYTES + Head::rest_bytes(fixed)?;
    let rest = bytes.get(FIXED_BYTES..rest_end).ok_or(FrameError::Truncated)?;
    let head = Head::decode(fixed, rest)?;
    let data_end = rest_end + head.wire_bytes();
    let data = bytes.get(rest_end..data_end).ok_or(FrameError::Truncated)?;
    if bytes.get(data_end..) != Some(&crc32fast::hash(&bytes[..data_end]).to_le_bytes()[..]) {
        return Err(FrameError::Checksum);
    }
    head.into_frame(Bytes::copy_from_slice(data))
}

impl Announced {
    fn read(bytes: &mut Cursor<'_>) -> Result<Self, FrameError> {
        let (shape, packed) = (read_shape(bytes)?, bytes.u32()?);
        let raw_bytes = data_bytes(&shape)?;
        match packed {
            0 => Ok(Self { shape, packed: None }),
            packed if u64::from(packed) < raw_bytes => Ok(Self { shape, packed: Some(packed) }),
            _ => Err(FrameError::Packed(PackError::Rest)),
        }
    }

    fn raw_bytes(&self) -> usize {
        data_bytes(&self.shape).expect("checked when it was read") as usize
    }

    fn wire_bytes(&self) -> usize {
        self.packed.map_or_else(|| self.raw_bytes(), |bytes| bytes as usize)
    }
}

impl Timing {
    fn append(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(&self.node.0);
        for micros in [self.transfer_us, self.queue_us, self.compute_us] {
            bytes.extend_from_slice(&micros.to_le_bytes());
        }
    }

    fn read(bytes: &mut Cursor<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            index: bytes.u16()?,
            node: NodeId(bytes.take()?),
            transfer_us: bytes.u32()?,
            queue_us: bytes.u32()?,
            compute_us: bytes.u32()?,
        })
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }
}

fn counts(fixed: &[u8; FIXED_BYTES]) -> Result<(usize, usize), FrameError> {
    if !fixed.starts_with(MAGIC) {
        return Err(FrameError::Magic);
    }
    let mut tail = Cursor(&fixed[COUNTS_AT..]);
    let (timings, tensors) = (usize::from(tail.u16()?), usize::from(tail.u16()?));
    check_counts(timings, tensors)?;
    Ok((timings, tensors))
}

fn check_counts(timings: usize, tensors: usize) -> Result<(), FrameError> {
    if timings > PIECES_MAX {
        return Err(FrameError::TooManyTimings);
    }
    if tensors > TENSORS_MAX { Err(FrameError::TooManyTensors) } else { Ok(()) }
}

fn head_bytes(timings: usize, tensors: usize) -> usize {
    FIXED_BYTES + timings * TIMING_BYTES + tensors * TENSOR_BYTES
}

fn data_bytes(shape: &[u32]) -> Result<u64, FrameError> {
    if shape.len() > RANK_MAX {
        return Err(FrameError::Rank);
    }
    // A zero makes the product zero, wherever it stands: without the special case the result
    // would depend on whether the dimensions before it overflow.
    if shape.contains(&0) {
        return Ok(0);
    }
    let multiply = |product: u64, dimension: &u32| product.checked_mul(u64::from(*dimension));
    match shape.iter().try_fold(4, multiply) {
        Some(bytes) if bytes <= FRAME_BYTES_MAX => Ok(bytes),
        Some(_) | None => Err(FrameError::TooLarge),
    }
}

fn append_shape(bytes: &mut Vec<u8>, shape: &[u32]) {
    bytes.push(shape.len() as u8);
    for place in 0..RANK_MAX {
        bytes.extend_from_slice(&shape.get(place).copied().unwrap_or(0).to_le_bytes());
    }
}

fn read_shape(bytes: &mut Cursor<'_>) -> Result<Vec<u32>, FrameError> {
    let [rank] = bytes.take()?;
    let rank = usize::from(rank);
    if rank > RANK_MAX {
        return Err(FrameError::Rank);
    }
    let mut shape = (0..RANK_MAX).map(|_| bytes.u32()).collect::<Result<Vec<_>, _>>()?;
    if shape[rank..].iter().any(|dimension| *dimension != 0) {
        return Err(FrameError::Padding);
    }
    shape.truncate(rank);
    Ok(shape)
}

/// The part of the head that tells how long the rest is.
pub(crate) const FIXED_BYTES: usize = 64;
/// The length of the checksum after the data.
pub(crate) const CHECKSUM_BYTES: usize = 4;
/// The most bytes of data in one frame.
pub(crate) const FRAME_BYTES_MAX: u64 = 256 << 20;
/// The most tensors in one frame.
pub(crate) const TENSORS_MAX: usize = 64;
/// The most dimensions of a tensor.
pub(crate) const RANK_MAX: usize = 8;
/// The last byte is the version.
const MAGIC: &[u8; 4] = b"STF\x04";
const COUNTS_AT: usize = 58;
const SENDER_AT: usize = 62;
const TIMING_BYTES: usize = 46;
/// Rank, dimensions, packed bytes.
const TENSOR_BYTES: usize = 1 + 4 * RANK_MAX + 4;

#[cfg(test)]
mod tests;
