use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use starling_protocol::wire::{Advert, FailureReason, Message};

use super::*;
use crate::identity;

fn failed(index: u16) -> Message {
    Message::Failed { session: 7, index, attempt: 1, epoch: 1, reason: FailureReason::NotHeld }
}

async fn quiet(net: &mut Net) {
    loop {
        let _ = net.next().await;
    }
}

#[tokio::test]
async fn adverts_reach_the_other_with_their_author() {
    for over in [Over::Tcp, Over::Quic] {
        let (mut a, mut b) = pair(over).await;
        let sent = Advert::Leaving { sequence: 3 };
        a.publish(&sent);
        let heard = until(&mut b, |event| match event {
            NetEvent::Advert { from, advert } => Some((from, advert)),
            _ => None,
        });
        let heard = tokio::select! { heard = heard => heard, () = quiet(&mut a) => unreachable!() };
        assert_eq!(heard, (a.local(), sent));
    }
}

#[tokio::test]
async fn requests_are_answered() {
    for over in [Over::Tcp, Over::Quic] {
        let (mut a, mut b) = pair(over).await;
        let (to, asker) = (b.local(), a.local());
        let serve = async {
            loop {
                if let NetEvent::Request { from, message, reply } = b.next().await {
                    assert_eq!(from, asker);
                    b.reply(reply, &[message, failed(9)]);
                }
            }
        };
        let ask = async {
            for index in 0..100 {
                a.send(to, &failed(index));
            }
            let mut answered = Vec::new();
            while answered.len() < 100 {
                answered.push(
                    until(&mut a, |event| match event {
                        NetEvent::Reply { from, messages } => Some((from, messages)),
                        NetEvent::Undelivered { reason, .. } => panic!("{reason}"),
                        _ => None,
                    })
                    .await,
                );
            }
            answered.sort_by_key(|(_, messages)| match messages[0] {
                Message::Failed { index, .. } => index,
                _ => unreachable!(),
            });
            for (index, (from, messages)) in answered.iter().enumerate() {
                assert_eq!(*from, to);
                assert_eq!(*messages, [failed(index as u16), failed(9)]);
            }
        };
        tokio::select! { () = ask => {}, () = serve => {} }
    }
}

#[tokio::test]
async fn a_node_can_ask_itself() {
    let mut net = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    net.send(net.local(), &failed(1));
    let (message, reply) = until(&mut net, |event| match event {
        NetEvent::Request { message, reply, .. } => Some((message, reply)),
        _ => None,
    })
    .await;
    net.reply(reply, &[message]);
    let answer = until(&mut net, |event| match event {
        NetEvent::Reply { from, messages } => Some((from, messages)),
        _ => None,
    })
    .await;
    assert_eq!(answer, (net.local(), vec![failed(1)]));
}

#[tokio::test]
async fn a_dropped_reply_is_an_undelivered_message() {
    let (mut a, mut b) = pair(Over::Tcp).await;
    let to = b.local();
    a.send(to, &failed(1));
    let told = until(&mut a, |event| match event {
        NetEvent::Undelivered { to, .. } => Some(to),
        _ => None,
    });
    let told = tokio::select! { told = told => told, () = quiet(&mut b) => unreachable!() };
    assert_eq!(told, to);
}

#[tokio::test]
async fn swarms_of_other_names_stay_apart() {
    let mut a = Net::new(config(Over::Tcp, "one", Vec::new())).unwrap();
    let address = listening(&mut a).await;
    let mut b = Net::new(config(Over::Tcp, "other", vec![address.clone()])).unwrap();
    let told = until(&mut b, |event| match event {
        NetEvent::Unreachable { address, reason } => Some((address, reason)),
        NetEvent::Joined(_) => panic!("joined another swarm"),
        _ => None,
    });
    let (at, reason) = tokio::select! { told = told => told, () = quiet(&mut a) => unreachable!() };
    assert_eq!(at, Some(address));
    assert!(reason.contains("another swarm"), "{reason}");
}

#[tokio::test]
async fn an_address_where_nobody_is_gets_one_clear_line() {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let mut net = Net::new(config(Over::Tcp, "test", vec![address.clone()])).unwrap();
    let (at, reason) = until(&mut net, |event| match event {
        NetEvent::Unreachable { address, reason } => Some((address, reason)),
        _ => None,
    })
    .await;
    assert_eq!(at, Some(address));
    assert!(reason.to_lowercase().contains("refused"), "{reason}");
    assert!(!reason.contains('\n'));
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let mut net = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    let taken = listening(&mut net).await;
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let foreign: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    assert_ne!(foreign, taken);
    let refused = Net::new(NetConfig {
        listen: vec![foreign.clone()],
        ..config(Over::Tcp, "test", Vec::new())
    });
    let error = refused.err().expect("the port is taken").to_string();
    assert!(error.contains(&foreign.to_string()), "{error}");
}

#[tokio::test]
async fn who_leaves_is_missed_and_who_returns_joins_again() {
    let mut a = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    let address = listening(&mut a).await;
    let b = config(Over::Tcp, "test", vec![address]);
    for _ in 0..2 {
        let mut net = Net::new(b.clone()).unwrap();
        let node = net.local();
        tokio::join!(joined(&mut a), joined(&mut net));
        let gone = until(&mut a, |event| match event {
            NetEvent::Left(node) => Some(node),
            _ => None,
        });
        let (gone, ()) = tokio::join!(gone, net.shutdown());
        assert_eq!(gone, node);
    }
}

#[tokio::test]
async fn learned_addresses_are_enough_to_talk() {
    let mut a = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    let mut b = Net::new(config(Over::Quic, "test", Vec::new())).unwrap();
    listening(&mut a).await;
    listening(&mut b).await;
    let junk = [vec![0xff; 5], Vec::new()];
    a.learn(b.local(), &junk);
    a.learn(a.local(), &a.addresses());
    // They listen on different transports, but both can dial on either.
    a.learn(b.local(), &b.addresses());
    let (at_a, at_b) = tokio::join!(joined(&mut a), joined(&mut b));
    assert_eq!((at_a, at_b), (b.local(), a.local()));
}

#[tokio::test]
async fn a_message_to_nobody_is_undelivered() {
    let mut net = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    let nobody = identity::node_id(&Keypair::generate_ed25519().public().to_peer_id()).unwrap();
    let no_key = (0..=255).map(|byte| NodeId([byte; 32]));
    let no_key = no_key.into_iter().find(|node| identity::peer_id(node).is_none()).unwrap();
    for to in [nobody, no_key] {
        net.send(to, &failed(1));
        let told = until(&mut net, |event| match event {
            NetEvent::Undelivered { to, .. } => Some(to),
            _ => None,
        })
        .await;
        assert_eq!(told, to);
    }
}

/// A wire to `port` that can be cut without either end being told.
fn wire(port: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let cut = Arc::new(AtomicBool::new(false));
    let shared = cut.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let cut = shared.clone();
                std::thread::spawn(move || pass_on(from, to, &cut));
            }
        }
    });
    (own_port, cut)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        let ended = count == 0;
        if !cut.load(Ordering::SeqCst) && (ended || to.write_all(&buffer[..count]).is_err()) {
            return;
        }
        if ended {
            return;
        }
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_though_its_connection_stands() {
    let mut a = Net::new(config(Over::Tcp, "test", Vec::new())).unwrap();
    let address = listening(&mut a).await;
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let (port, cut) = wire(port.unwrap());
    let through: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let mut b = Net::new(config(Over::Tcp, "test", vec![through])).unwrap();
    tokio::join!(joined(&mut a), joined(&mut b));
    cut.store(true, Ordering::SeqCst);
    let left = async |net: &mut Net| {
        until(net, |event| match event {
            NetEvent::Left(node) => Some(node),
            _ => None,
        })
        .await
    };
    let (at_a, at_b) = tokio::join!(left(&mut a), left(&mut b));
    assert_eq!((at_a, at_b), (b.local(), a.local()));
}
