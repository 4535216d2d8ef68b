//! Reading and writing with a peer that may lie or stall: nothing waits for ever, and no memory is
//! taken on the strength of a claimed length alone.

use std::{io, time::Duration};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// `future`, or a time-out error that says what was waited for.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &'static str,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no {what} in {} s", limit.as_secs_f32()),
        )),
    }
}

/// Reads `length` bytes, giving each chunk to `each` as it comes. What is allocated leads what has
/// arrived by at most [`LEAD_MAX`] or as much again, so a lying length costs the liar more than us.
pub(crate) async fn read_bytes<R: AsyncRead + Unpin>(
    reader: &mut R,
    length: usize,
    progress: Duration,
    mut each: impl FnMut(&[u8]),
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        let end = length.min(start + CHUNK);
        if end > bytes.capacity() {
            let capacity = length.min((2 * bytes.capacity()).max(LEAD_MAX));
            bytes.reserve_exact(capacity - start);
        }
        bytes.resize(end, 0);
        within(progress, "bytes", reader.read_exact(&mut bytes[start..])).await?;
        each(&bytes[start..]);
    }
    Ok(bytes)
}

/// Writes all bytes, as long as each chunk of them is taken in time.
pub(crate) async fn write_bytes<W: AsyncWrite + Unpin>(
    writer: &mut W,
    bytes: &[u8],
    progress: Duration,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    for chunk in bytes.chunks(CHUNK) {
        each(chunk);
        within(progress, "room for bytes", writer.write_all(chunk)).await?;
    }
    Ok(())
}

/// An error for bytes that break the rules.
pub(crate) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Read, hashed and written at a time: stays in the second-level cache.
pub(crate) const CHUNK: usize = 128 * 1024;
/// Allocated at once for whoever asks.
const LEAD_MAX: usize = 1024 * 1024;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_bytes_arrive_in_an_exact_allocation() {
        for length in [0, 1, CHUNK, CHUNK + 1, LEAD_MAX, LEAD_MAX + 1, 3 * LEAD_MAX] {
            let sent: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut seen = 0;
            let mut reader = &sent[..];
            let count = |chunk: &[u8]| seen += chunk.len();
            let read = read_bytes(&mut reader, length, Duration::from_secs(10), count);
            let read = read.await.unwrap();
            assert_eq!(read, sent);
            assert_eq!(read.capacity(), length);
            assert_eq!(seen, length);
        }
    }

    #[tokio::test]
    async fn a_lying_length_ends_in_an_error() {
        let mut reader = &[0; 100][..];
        let read = read_bytes(&mut reader, usize::MAX / 4, Duration::from_secs(10), |_| {});
        assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
