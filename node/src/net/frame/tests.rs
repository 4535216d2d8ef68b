#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::*;

fn encode(frame: &Frame) -> Vec<u8> {
    let encoded = frame.encode().unwrap();
    let mut bytes = encoded.head;
    encoded.data.iter().for_each(|data| bytes.extend_from_slice(data));
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn tensor(shape: &[u32]) -> TensorBytes {
    let length = shape.iter().product::<u32>() as usize * 4;
    TensorBytes { shape: shape.to_vec(), data: Bytes::from(vec![7; length]) }
}

fn frame(tensors: Vec<TensorBytes>) -> Frame {
    let session = SessionId { requester: NodeId([3; 32]), number: 9 };
    Frame { session, epoch: 1, request: 2, sender: 3, index: RESULT, trace: Vec::new(), tensors }
}

fn timing(index: u16) -> Timing {
    Timing { index, node: NodeId([5; 32]), transfer_us: 1, queue_us: 2, compute_us: u32::MAX }
}

impl Arbitrary for Frame {
    fn arbitrary(g: &mut Gen) -> Self {
        let id = |g: &mut Gen| NodeId(std::array::from_fn(|_| u8::arbitrary(g)));
        let timing = |g: &mut Gen| Timing {
            index: u16::arbitrary(g),
            node: id(g),
            transfer_us: u32::arbitrary(g),
            queue_us: u32::arbitrary(g),
            compute_us: u32::arbitrary(g),
        };
        let tensor = |g: &mut Gen| {
            let rank = usize::arbitrary(g) % (RANK_MAX + 1);
            let shape: Vec<u32> = (0..rank).map(|_| u32::arbitrary(g) % 3).collect();
            let length = shape.iter().product::<u32>() as usize * 4;
            let data = (0..length).map(|_| u8::arbitrary(g)).collect();
            TensorBytes { shape, data }
        };
        Frame {
            session: SessionId { requester: id(g), number: u64::arbitrary(g) },
            epoch: u32::arbitrary(g),
            request: u64::arbitrary(g),
            sender: u16::arbitrary(g),
            index: u16::arbitrary(g),
            trace: (0..u8::arbitrary(g) % 5).map(|_| timing(g)).collect(),
            tensors: (0..u8::arbitrary(g) % 4).map(|_| tensor(g)).collect(),
        }
    }
}

quickcheck! {
    fn frames_survive_the_trip(frame: Frame) -> bool {
        decode(&encode(&frame)).unwrap() == frame
    }

    fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) -> bool {
        decode(&bytes).is_err()
    }

    fn heads_of_any_bytes_are_a_head_or_an_error(fixed: Vec<u8>, rest: Vec<u8>) -> bool {
        // Random bytes hardly ever pass the magic: start from valid ones and spoil the counts.
        let mut head = [0; FIXED_BYTES];
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        for (place, byte) in head[MAGIC.len()..COUNTS_AT].iter_mut().zip(&fixed) {
            *place = *byte;
        }
        for (place, byte) in head[COUNTS_AT..].iter_mut().zip(&rest) {
            *place = *byte % 3;
        }
        match Head::decode(&head, &rest) {
            Ok(head) => head.data_bytes() as u64 <= FRAME_BYTES_MAX,
            Err(_) => true,
        }
    }

    fn one_wrong_byte_is_noticed(frame: Frame, place: usize, flip: u8) -> TestResult {
        if flip == 0 {
            return TestResult::discard();
        }
        let mut bytes = encode(&frame);
        let place = place % bytes.len();
        bytes[place] ^= flip;
        TestResult::from_bool(decode(&bytes).is_err())
    }

    fn every_cut_is_noticed(frame: Frame) -> bool {
        let bytes = encode(&frame);
        (0..bytes.len()).all(|end| decode(&bytes[..end]).is_err())
    }
}

#[test]
fn each_limit_holds_at_one_more() {
    let check = |frame: Frame, expected: Option<FrameError>| {
        assert_eq!(frame.check().err(), expected);
        assert_eq!(frame.encode().err(), expected);
    };
    check(frame(vec![tensor(&[1]); TENSORS_MAX]), None);
    check(frame(vec![tensor(&[1]); TENSORS_MAX + 1]), Some(FrameError::TooManyTensors));
    check(frame(vec![tensor(&[1; RANK_MAX])]), None);
    check(frame(vec![tensor(&[1; RANK_MAX + 1])]), Some(FrameError::Rank));
    let traced = |count: usize| Frame {
        trace: (0..count).map(|index| timing(index as u16)).collect(),
        ..frame(Vec::new())
    };
    check(traced(PIECES_MAX), None);
    check(traced(PIECES_MAX + 1), Some(FrameError::TooManyTimings));
    let short = TensorBytes { shape: vec![2], data: Bytes::from_static(&[0; 7]) };
    check(frame(vec![short]), Some(FrameError::DataLength));
}

#[test]
fn sizes_can_not_overflow() {
    let limit = (FRAME_BYTES_MAX / 4) as u32;
    assert_eq!(data_bytes(&[limit]), Ok(FRAME_BYTES_MAX));
    assert_eq!(data_bytes(&[limit + 1]), Err(FrameError::TooLarge));
    assert_eq!(data_bytes(&[u32::MAX; RANK_MAX]), Err(FrameError::TooLarge));
    assert_eq!(data_bytes(&[u32::MAX, u32::MAX, u32::MAX, 0]), Ok(0));
    assert_eq!(data_bytes(&[]), Ok(4), "a scalar");
}

#[test]
fn many_tensors_within_the_limit_may_be_beyond_it_together() {
    let mut head = frame(Vec::new()).encode().unwrap().head;
    head[60] = 2;
    for _ in 0..2 {
        append_shape(&mut head, &[(FRAME_BYTES_MAX / 4) as u32]);
        head.extend_from_slice(&[0; 4]);
    }
    let fixed = head.first_chunk::<FIXED_BYTES>().unwrap();
    assert_eq!(Head::decode(fixed, &head[FIXED_BYTES..]), Err(FrameError::TooLarge));
}

#[test]
fn the_layout_stays() {
    let sent = Frame { trace: vec![timing(4)], ..frame(vec![tensor(&[1, 2])]) };
    let digest = blake3::hash(&encode(&sent)).to_hex();
    assert_eq!(&digest[..16], "fa56ff1ace08f668");
}
