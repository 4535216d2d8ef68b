use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use starling_protocol::BlobId;

use super::*;
use crate::net::blobs::{BlobSource, FetchError, fetch, fetch_to_file, serve};

/// Gives whatever it was told to, right or wrong.
struct Shelf(HashMap<BlobId, Bytes>);

impl BlobSource for Shelf {
    fn blob(&self, id: &BlobId) -> Option<Bytes> {
        self.0.get(id).cloned()
    }
}

fn name(bytes: &[u8]) -> BlobId {
    BlobId(*blake3::hash(bytes).as_bytes())
}

fn blob(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn blobs_arrive_and_are_verified() {
    for over in [Over::Tcp, Over::Quic] {
        let (a, b) = Running::pair(over).await;
        let (empty, large, lie) = (blob(0), blob(3_000_000), blob(10));
        let lied = BlobId([7; 32]);
        let shelf = [(name(&empty), &empty), (name(&large), &large), (lied, &lie)];
        let shelf = shelf.into_iter().map(|(id, bytes)| (id, bytes.clone())).collect();
        serve(a.control.clone(), "test", Arc::new(Shelf(shelf))).unwrap();
        let get = async |id, length| {
            soon(fetch(&mut b.control.clone(), "test", a.node, id, length)).await
        };
        assert_eq!(get(name(&large), 3_000_000).await.unwrap(), large);
        assert_eq!(get(name(&empty), 0).await.unwrap(), empty);
        let error = get(name(&large), 2_999_999).await.unwrap_err();
        assert!(
            matches!(error, FetchError::TooLong { claimed: 3_000_000, length: 2_999_999 }),
            "{error}"
        );
        let error = get(name(b"elsewhere"), 10).await.unwrap_err();
        assert!(matches!(error, FetchError::NotHeld), "{error}");
        let error = get(lied, 10).await.unwrap_err();
        assert!(matches!(error, FetchError::WrongBytes), "{error}");
    }
}

#[tokio::test]
async fn blobs_arrive_in_files_and_are_verified() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let (large, lie) = (blob(3_000_000), blob(10));
    let lied = BlobId([7; 32]);
    let shelf = HashMap::from([(name(&large), large.clone()), (lied, lie)]);
    serve(a.control.clone(), "test", Arc::new(Shelf(shelf))).unwrap();
    let get = async |id, length| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = tokio::fs::File::from_std(file.reopen().unwrap());
        let mut control = b.control.clone();
        let fetched = fetch_to_file(&mut control, "test", a.node, id, length, &mut writer);
        soon(fetched).await.map(|()| std::fs::read(file.path()).unwrap())
    };
    assert_eq!(get(name(&large), 3_000_000).await.unwrap(), large);
    let error = get(name(&large), 2_999_999).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLong { .. }), "{error}");
    let error = get(lied, 10).await.unwrap_err();
    assert!(matches!(error, FetchError::WrongBytes), "{error}");
}

#[tokio::test]
async fn many_blobs_come_at_once() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let blobs: Vec<Bytes> = (1..=12).map(|number| blob(number * 10_000)).collect();
    let shelf = blobs.iter().map(|bytes| (name(bytes), bytes.clone())).collect();
    serve(a.control.clone(), "test", Arc::new(Shelf(shelf))).unwrap();
    let fetches = blobs.iter().map(|bytes| {
        let (mut control, from) = (b.control.clone(), a.node);
        async move { fetch(&mut control, "test", from, name(bytes), 1_000_000).await }
    });
    let fetched = soon(futures::future::join_all(fetches)).await;
    for (fetched, bytes) in fetched.into_iter().zip(blobs) {
        assert_eq!(fetched.unwrap(), bytes);
    }
}

#[tokio::test]
async fn who_serves_nothing_or_is_nobody_is_unreachable() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let nobody = Keypair::generate_ed25519().public().to_peer_id();
    let nobody = crate::identity::node_id(&nobody).unwrap();
    for from in [a.node, nobody] {
        let fetched = soon(fetch(&mut b.control.clone(), "test", from, name(b""), 0)).await;
        assert!(matches!(fetched, Err(FetchError::Unreachable(_))), "{fetched:?}");
    }
}
