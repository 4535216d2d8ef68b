//! Market messages on a stream: a request is one message, a response a list of them. Each is its
//! length (four bytes, little-endian) and the bytes of the protocol's own encoding.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use starling_protocol::wire::{self, MESSAGE_BYTES_MAX, Message};

use super::io::invalid;

/// The most messages in one response.
pub(crate) const REPLIES_MAX: usize = 64;

/// The encoding. What can't be decoded is an error, which closes the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MarketCodec;

impl request_response::Codec for MarketCodec {
    type Protocol = StreamProtocol;
    type Request = Message;
    type Response = Vec<Message>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Message> {
        read_message(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<Message>> {
        let mut count = [0];
        io.read_exact(&mut count).await?;
        let count = usize::from(count[0]);
        if count > REPLIES_MAX {
            return Err(invalid(format!("{count} replies, over the limit of {REPLIES_MAX}")));
        }
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(read_message(io).await?);
        }
        Ok(replies)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Message,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        append(&mut bytes, &request)?;
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        replies: Vec<Message>,
    ) -> io::Result<()> {
        if replies.len() > REPLIES_MAX {
            return Err(invalid("too many replies to one request"));
        }
        let mut bytes = vec![replies.len() as u8];
        replies.iter().try_for_each(|reply| append(&mut bytes, reply))?;
        io.write_all(&bytes).await
    }
}

fn append(bytes: &mut Vec<u8>, message: &Message) -> io::Result<()> {
    let encoded = wire::encode(message).map_err(invalid)?;
    bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    Ok(())
}

async fn read_message<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Message> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid(wire::DecodeError::TooLong(length)));
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    wire::decode(&bytes).map_err(invalid)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use futures::executor::block_on;
    use quickcheck::quickcheck;
    use request_response::Codec;
    use starling_protocol::wire::{FailureReason, Lease};

    use super::*;

    fn protocol() -> StreamProtocol {
        StreamProtocol::new("/starling/test")
    }

    fn failed(index: u16) -> Message {
        Message::Failed { session: 7, index, attempt: 1, epoch: 1, reason: FailureReason::NotHeld }
    }

    fn round_trip(replies: Vec<Message>) -> io::Result<Vec<Message>> {
        let mut bytes = Vec::new();
        block_on(MarketCodec.write_response(&protocol(), &mut bytes, replies))?;
        block_on(MarketCodec.read_response(&protocol(), &mut &bytes[..]))
    }

    #[test]
    fn replies_survive_the_trip_up_to_the_limit() {
        for count in [0, 1, REPLIES_MAX] {
            let replies: Vec<Message> = (0..count as u16).map(failed).collect();
            assert_eq!(round_trip(replies.clone()).unwrap(), replies);
        }
        assert!(round_trip(vec![failed(0); REPLIES_MAX + 1]).is_err());
    }

    #[test]
    fn a_message_over_the_limits_is_not_sent() {
        let leases = vec![Lease { index: 0, attempt: 0 }; 129];
        let message = Message::Release { session: 1, leases };
        let mut bytes = Vec::new();
        assert!(block_on(MarketCodec.write_request(&protocol(), &mut bytes, message)).is_err());
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_lying_length_is_refused_before_it_is_read() {
        let bytes = u32::MAX.to_le_bytes();
        let error = block_on(MarketCodec.read_request(&protocol(), &mut &bytes[..])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    quickcheck! {
        fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>) -> bool {
            let request = block_on(MarketCodec.read_request(&protocol(), &mut &bytes[..]));
            let replies = block_on(MarketCodec.read_response(&protocol(), &mut &bytes[..]));
            request.is_err() || replies.is_err() || !bytes.is_empty()
        }
    }
}
