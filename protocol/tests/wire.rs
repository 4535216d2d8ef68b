//! The wire: golden vectors, limits, and decoding that is total.

use quickcheck::quickcheck;
use starling_protocol::{
    BlobId, ModelId, Nats, NodeId,
    model::Speed,
    plan::LayerRange,
    rows::RowRange,
    testing::AnyMessage,
    wire::{
        self, Advert, Ask, Claim, DecodeError, Lease, MESSAGE_BYTES_MAX, Message, NodeAdvert,
        PriceAdvert, VERSION,
    },
    wiring::{Link, REQUESTER},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message that encodes to anything else than this is another protocol: raise `VERSION`.
fn check<M: wire::Wire + PartialEq + std::fmt::Debug>(message: &M, golden: &str) {
    let bytes = wire::encode(message).expect("within the limits");
    assert_eq!(hex(&bytes), golden);
    assert_eq!(&wire::decode::<M>(&bytes).expect("its own bytes"), message);
}

#[test]
fn golden_vectors() {
    check(
        &Message::Bid {
            session: 7,
            index: 2,
            attempt: 3,
            level: Nats(50_000_000),
            weight_bytes: 9,
            keeps: Some(2),
            claim: Claim::OpenSlot,
        },
        "0500070203fc00e1f50509010201",
    );
    check(
        &Message::Award {
            session: 7,
            index: 2,
            attempt: 3,
            ask: Ask { version: 300, level: Some(Nats(5)), holders: 1 },
            lease_ms: 6000,
        },
        "0501070203fb2c01010a01fb7017",
    );
    check(
        &Message::Renew { session: 7, leases: vec![Lease { index: 1, attempt: 4 }] },
        "050407010104",
    );
    check(
        &Message::Install {
            session: 1,
            index: 0,
            attempt: 1,
            epoch: 1,
            model: ModelId([0xaa; 32]),
            layers: LayerRange { first: 0, end: 5 },
            rows: vec![RowRange::new(0, 9)],
            slice: BlobId([0xbb; 32]),
            slice_bytes: 100,
            sources: vec![Link { piece: REQUESTER, node: NodeId([0xcc; 32]), rows: vec![] }],
            targets: vec![Link {
                piece: 1,
                node: NodeId([0xdd; 32]),
                rows: vec![RowRange::new(2, 7)],
            }],
        },
        &format!(
            "050701000101{}0005010009{}6401fbffff{}000101{}010207",
            "aa".repeat(32),
            "bb".repeat(32),
            "cc".repeat(32),
            "dd".repeat(32)
        ),
    );
    check(&Advert::Leaving { sequence: 9 }, "050309");
    check(
        &Advert::Price(PriceAdvert {
            ask: Ask { version: 9, level: Some(Nats(5)), holders: 3 },
            memory_free: 7,
        }),
        "050109010a0307",
    );
    check(
        &Advert::Node(NodeAdvert {
            sequence: 1,
            ttl_ms: 2,
            speed: Speed([1, 2, 3, 4, 5]),
            bandwidth: 6,
            byte_ps: 250,
            memory_free: 7,
            slots: 8,
            ask: Ask { version: 9, level: None, holders: 0 },
            models: vec![],
            addresses: vec![vec![0xff]],
        }),
        "05000102010203040506fa0708090000000101ff",
    );
}

#[test]
fn refusals_say_what_is_wrong() {
    let good = wire::encode(&Advert::Leaving { sequence: 9 }).expect("small");
    let refuse = |bytes: &[u8]| wire::decode::<Advert>(bytes).expect_err("junk");
    assert_eq!(refuse(&[]), DecodeError::Empty);
    let mut other = good.clone();
    other[0] = VERSION + 1;
    assert_eq!(refuse(&other), DecodeError::Version(VERSION + 1));
    assert_eq!(refuse(&[good, vec![0]].concat()), DecodeError::Trailing(1));
    assert!(matches!(refuse(&[VERSION, 99]), DecodeError::Malformed(_)));
    let long = vec![VERSION; MESSAGE_BYTES_MAX + 1];
    assert_eq!(refuse(&long), DecodeError::TooLong(MESSAGE_BYTES_MAX + 1));
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // Renew, session 0, and a claim of 2^63 leases.
    let mut bytes = vec![VERSION, 4, 0, 253];
    bytes.extend_from_slice(&(1_u64 << 63).to_le_bytes());
    assert!(matches!(wire::decode::<Message>(&bytes), Err(DecodeError::Malformed(_))));
}

#[test]
fn limits_hold_at_the_limit_and_one_above() {
    let renew = |count: u32| Message::Renew {
        session: 1,
        leases: (0..count).map(|attempt| Lease { index: 0, attempt }).collect(),
    };
    assert!(wire::encode(&renew(128)).is_ok());
    assert!(wire::encode(&renew(129)).is_err());
    let bid = |level| Message::Bid {
        session: 1,
        index: 0,
        attempt: 1,
        level,
        weight_bytes: 0,
        keeps: None,
        claim: Claim::Any,
    };
    assert!(wire::encode(&bid(Nats(1 << 60))).is_ok());
    assert!(wire::encode(&bid(Nats((1 << 60) + 1))).is_err());
    assert!(wire::encode(&bid(Nats(-1))).is_err());
}

quickcheck! {
    fn every_message_survives_the_wire(message: AnyMessage) -> bool {
        match message {
            AnyMessage::Advert(advert) => {
                let bytes = wire::encode(&advert).expect("within the limits");
                wire::decode::<Advert>(&bytes) == Ok(advert)
            }
            AnyMessage::Market(market) => {
                let bytes = wire::encode(&market).expect("within the limits");
                wire::decode::<Message>(&bytes) == Ok(market)
            }
        }
    }

    fn decoding_is_total(bytes: Vec<u8>) -> bool {
        let versioned = [vec![VERSION], bytes.clone()].concat();
        let _ = wire::decode::<Advert>(&bytes);
        let _ = wire::decode::<Message>(&versioned);
        let _ = wire::decode::<Advert>(&versioned);
        true
    }

    fn a_flipped_byte_is_another_message_or_an_error(message: AnyMessage, at: usize, flip: u8) -> bool {
        let bytes = match &message {
            AnyMessage::Advert(advert) => wire::encode(advert),
            AnyMessage::Market(market) => wire::encode(market),
        };
        let mut bytes = bytes.expect("within the limits");
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let _ = wire::decode::<Advert>(&bytes);
        let _ = wire::decode::<Message>(&bytes);
        true
    }
}
