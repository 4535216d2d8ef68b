//! What a peer sends can close its stream, never disturb the node.

use std::sync::Arc;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};
use starling_protocol::{BlobId, SessionId};

use super::*;
use crate::{
    identity,
    net::{
        Frame, RESULT, TensorBytes,
        blobs::{FetchError, fetch, serve},
        names::Names,
        tensors::{Arrival, SendError, TensorConfig, TensorLinks, tensor_links},
    },
    store::Library,
};

async fn open(from: &Running, to: &Running, protocol: &StreamProtocol) -> Stream {
    let peer = identity::peer_id(&to.node).unwrap();
    soon(from.control.clone().open_stream(peer, protocol.clone())).await.unwrap()
}

/// Writes, until the other side has closed the stream.
async fn provoke(stream: Stream, junk: &[u8]) {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        let _ = writer.write_all(junk).await;
        let _ = writer.close().await;
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = soon(reader.read_to_end(&mut answer)) => {}
        () = write => unreachable!(),
    }
}

fn junk() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(), vec![0], vec![0; 100], vec![0xff; 100], vec![0xff; 1_000_000]];
    all.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    all.push([&64u32.to_le_bytes()[..], &[1; 64]].concat());
    all.push([&16_385u32.to_le_bytes()[..], &[1; 17_000]].concat());
    all
}

fn frame(request: u64) -> Frame {
    Frame {
        session: SessionId { requester: NodeId([3; 32]), number: 9 },
        epoch: 1,
        request,
        sender: 1,
        index: RESULT,
        trace: Vec::new(),
        tensors: vec![TensorBytes { shape: vec![1], data: vec![0; 4].into() }],
    }
}

fn links(net: &Running) -> (TensorLinks, mpsc::Receiver<Arrival>) {
    tensor_links(net.control.clone(), net.node, "test", TensorConfig::default()).unwrap()
}

#[tokio::test]
async fn on_the_market() {
    let (a, mut b) = Running::pair(Over::Tcp).await;
    let protocol = Names::new("test").market();
    for junk in junk() {
        provoke(open(&a, &b, &protocol).await, &junk).await;
    }
    while let Ok(event) = b.events.try_recv() {
        assert!(!matches!(event, NetEvent::Request { .. } | NetEvent::Left(_)), "{event:?}");
    }
    // Still there for others.
    let mut c = Running::start(Over::Tcp, vec![b.address.clone()]).await;
    c.join().await;
}

#[tokio::test]
async fn on_the_tensor_streams() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let (sender, _) = links(&a);
    let (_, mut arrivals) = links(&b);
    let protocol = Names::new("test").tensor();
    let mut spoiled = frame(1).encode().unwrap().head;
    spoiled.extend_from_slice(&[0; 4 + 16]);
    let mut huge = frame(1);
    huge.tensors[0] = TensorBytes { shape: vec![0], data: Vec::new().into() };
    let mut huge = huge.encode().unwrap().head;
    let dimension = huge.len() - 36;
    huge[dimension..dimension + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    for junk in junk().into_iter().chain([spoiled, huge]) {
        provoke(open(&a, &b, &protocol).await, &junk).await;
    }
    assert!(arrivals.try_recv().is_err(), "junk was delivered");
    soon(sender.send(b.node, frame(7))).await.unwrap();
    assert_eq!(soon(arrivals.recv()).await.unwrap().frame, frame(7));
}

#[tokio::test]
async fn more_frames_than_credits_close_the_stream() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let (_, mut arrivals) = links(&b);
    let mut one = frame(1).encode().unwrap().head;
    one.extend_from_slice(&[0; 4]);
    let checksum = crc32fast::hash(&one);
    one.extend_from_slice(&checksum.to_le_bytes());
    provoke(open(&a, &b, &Names::new("test").tensor()).await, &one.repeat(5)).await;
    let mut held = Vec::new();
    while let Ok(arrival) = arrivals.try_recv() {
        held.push(arrival);
    }
    assert_eq!(held.len(), 4);
}

#[tokio::test]
async fn a_peer_gets_only_so_many_streams() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let (_, mut arrivals) = links(&b);
    let protocol = Names::new("test").tensor();
    let max = TensorConfig::default().streams_per_peer_max;
    let mut held = Vec::new();
    for _ in 0..max {
        let mut stream = open(&a, &b, &protocol).await;
        soon(stream.read_exact(&mut [0])).await.unwrap();
        held.push(stream);
    }
    let mut refused = open(&a, &b, &protocol).await;
    assert!(soon(refused.read_exact(&mut [0])).await.is_err(), "one over the limit");
    drop(held);
    let (sender, _) = links(&a);
    soon(sender.send(b.node, frame(1))).await.unwrap();
    assert_eq!(soon(arrivals.recv()).await.unwrap().frame, frame(1));
}

#[tokio::test]
async fn from_a_receiver_of_tensors() {
    use futures::StreamExt;
    let (a, b) = Running::pair(Over::Tcp).await;
    let mut incoming = b.control.clone().accept(Names::new("test").tensor()).unwrap();
    let (sender, _) = links(&a);
    let serve = async {
        let (_, mut stream) = incoming.next().await.unwrap();
        stream.write_all(&[0]).await.unwrap();
        stream.close().await.unwrap();
        std::future::pending::<()>().await;
    };
    let sent = soon(sender.send(b.node, frame(1)));
    let sent = tokio::select! { sent = sent => sent, () = serve => unreachable!() };
    assert!(matches!(sent, Err(SendError::Broken(_))), "a window of no frames: {sent:?}");
}

#[tokio::test]
async fn on_the_blob_streams() {
    let (a, b) = Running::pair(Over::Tcp).await;
    let library = Arc::new(Library::default());
    let id = library.insert(vec![5; 100].into()).unwrap();
    serve(b.control.clone(), "test", library).unwrap();
    for junk in junk() {
        provoke(open(&a, &b, &Names::new("test").blob()).await, &junk).await;
    }
    let fetched = soon(fetch(&mut a.control.clone(), "test", b.node, id, 100)).await;
    assert_eq!(fetched.unwrap(), vec![5; 100]);
}

#[tokio::test]
async fn from_a_giver_of_blobs() {
    use futures::StreamExt;
    let (a, b) = Running::pair(Over::Tcp).await;
    let mut incoming = b.control.clone().accept(Names::new("test").blob()).unwrap();
    let claim = |length: u64, bytes: &[u8]| [&[1], &length.to_le_bytes()[..], bytes].concat();
    let answers = [claim(u64::MAX, b""), claim(100, b"short"), claim(5, b"wrong"), vec![9], vec![]];
    let serve = async {
        for answer in &answers {
            let (_, mut stream) = incoming.next().await.unwrap();
            let _ = stream.read_exact(&mut [0; 32]).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.close().await;
        }
        // The last answer was none at all: it is asked for again, in vain.
        while let Some((_, stream)) = incoming.next().await {
            drop(stream);
        }
    };
    let ask = async {
        let mut errors = Vec::new();
        for _ in 0..answers.len() {
            let mut control = a.control.clone();
            errors.push(soon(fetch(&mut control, "test", b.node, BlobId([1; 32]), 100)).await);
        }
        errors.into_iter().map(Result::unwrap_err).collect::<Vec<_>>()
    };
    let errors = tokio::select! { errors = ask => errors, () = serve => unreachable!() };
    assert!(matches!(errors[0], FetchError::TooLong { claimed: u64::MAX, .. }), "{errors:?}");
    assert!(matches!(errors[1], FetchError::Broken(_)), "{errors:?}");
    assert!(matches!(errors[2], FetchError::WrongBytes), "{errors:?}");
    assert!(matches!(errors[3], FetchError::NotHeld), "{errors:?}");
    assert!(matches!(errors[4], FetchError::Broken(_)), "{errors:?}");
}
