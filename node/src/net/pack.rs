//! Tensors in fewer bytes, without loss: every byte costs a link time and two processors work, and
//! much of what goes between the layers of a network says little. About half of what leaves a
//! rectifier is zero, and a picture has 256 values for each of its colours.
//!
//! A tensor is packed in blocks of [`BLOCK`] elements, each in the shortest of three forms:
//!
//! | form | bytes for `n` elements |
//! |---|---|
//! | plain | 1, then 4 `n` |
//! | sparse: a bit for each element, set where it is not zero, and those that are not | 1, then `n / 8` rounded up, then 4 for each |
//! | palette: the `c` values that occur, at most 256, and for each element which | 1, then 1 for `c - 1`, 4 `c`, `n` |
//!
//! Elements are compared by their bits: a negative zero is none, and whatever a `NaN` carries stays.
//! No general compressor does this as fast as a network sends: they look for what repeats byte by
//! byte, and the low bytes of floats don't.

use thiserror::Error;

/// Why packed bytes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PackError {
    /// They end before the tensor does.
    #[error("packed data that end too early")]
    Truncated,
    /// They go on after it.
    #[error("packed data with rubbish after their end")]
    Rest,
    /// No such form, or a bit or a number that stands for no element.
    #[error("packed data in no known form")]
    Form,
}

/// The same elements in fewer bytes; nothing where that saves too little to be worth the work.
/// `raw` are `f32`s, little-endian.
pub(crate) fn pack(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < BYTES_MIN {
        return None;
    }
    let (elements, _) = raw.as_chunks::<4>();
    let mut palette = Palette::default();
    let blocks: Vec<Block> =
        elements.chunks(BLOCK).map(|block| Block::of(block, &mut palette)).collect();
    let length: usize = blocks.iter().map(Block::bytes).sum();
    if length as f64 > raw.len() as f64 * SHARE_MAX {
        return None;
    }
    let mut packed = Vec::with_capacity(length);
    for block in blocks {
        block.append(&mut packed);
    }
    Some(packed)
}

/// What is left of some tensors' bytes when each is packed; all where there are none.
pub(crate) fn share<'a>(tensors: impl Iterator<Item = &'a [u8]>) -> f64 {
    let sizes = tensors.map(|raw| (pack(raw).map_or(raw.len(), |packed| packed.len()), raw.len()));
    let (packed, raw) = sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    if raw == 0 { 1.0 } else { packed as f64 / raw as f64 }
}

/// The elements that were packed, `raw_bytes` of them.
///
/// # Errors
/// If the bytes are no packed tensor of that length. Total on any bytes.
pub(crate) fn unpack(packed: &[u8], raw_bytes: usize) -> Result<Vec<u8>, PackError> {
    let count = raw_bytes / 4;
    let mut raw = Vec::with_capacity(count);
    let mut rest = Rest(packed);
    while raw.len() < count {
        let elements = BLOCK.min(count - raw.len());
        match rest.take(1)?[0] {
            form if form == Form::Plain as u8 => {
                let (plain, _) = rest.take(4 * elements)?.as_chunks();
                raw.extend_from_slice(plain);
            }
            form if form == Form::Sparse as u8 => unpack_sparse(&mut rest, elements, &mut raw)?,
            form if form == Form::Palette as u8 => unpack_palette(&mut rest, elements, &mut raw)?,
            _ => return Err(PackError::Form),
        }
    }
    if rest.0.is_empty() { Ok(raw.into_flattened()) } else { Err(PackError::Rest) }
}

/// How a block is packed; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain = 0,
    Sparse = 1,
    Palette = 2,
}

/// Elements, and what it takes to pack them in their shortest form.
enum Block<'a> {
    Plain(&'a [[u8; 4]]),
    /// So many of them are not zero.
    Sparse(&'a [[u8; 4]], usize),
    /// The values that occur, and for each element which: found already, as that takes longest.
    Palette(Vec<[u8; 4]>, Vec<u8>),
}

impl<'a> Block<'a> {
    fn of(elements: &'a [[u8; 4]], palette: &mut Palette) -> Self {
        let zeros = elements.iter().filter(|element| **element == ZERO).count();
        let plain = Self::Plain(elements);
        let sparse = Self::Sparse(elements, elements.len() - zeros);
        let shorter = if sparse.bytes() < plain.bytes() { sparse } else { plain };
        match palette.learn(elements) {
            Some(palette) if palette.bytes() < shorter.bytes() => palette,
            Some(_) | None => shorter,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Plain(elements) => 1 + 4 * elements.len(),
            Self::Sparse(elements, set) => 1 + elements.len().div_ceil(8) + 4 * set,
            Self::Palette(values, places) => 2 + 4 * values.len() + places.len(),
        }
    }

    fn append(&self, packed: &mut Vec<u8>) {
        match self {
            Self::Plain(elements) => {
                packed.push(Form::Plain as u8);
                packed.extend_from_slice(elements.as_flattened());
            }
            Self::Sparse(elements, _) => {
                packed.push(Form::Sparse as u8);
                pack_sparse(elements, packed);
            }
            Self::Palette(values, places) => {
                packed.extend([Form::Palette as u8, (values.len() - 1) as u8]);
                packed.extend_from_slice(values.as_flattened());
                packed.extend_from_slice(places);
            }
        }
    }
}

fn pack_sparse(block: &[[u8; 4]], packed: &mut Vec<u8>) {
    let set = |byte: &[[u8; 4]]| {
        let bits = byte.iter().enumerate().map(|(at, value)| u8::from(*value != ZERO) << at);
        bits.fold(0, |all, bit| all | bit)
    };
    packed.extend(block.chunks(8).map(set));
    for group in block.chunks(GROUP) {
        // Without a branch for each element, which no processor could foresee.
        let (mut kept, mut count) = ([ZERO; GROUP], 0);
        for value in group {
            kept[count] = *value;
            count += usize::from(*value != ZERO);
        }
        packed.extend_from_slice(kept[..count].as_flattened());
    }
}

fn unpack_sparse(rest: &mut Rest<'_>, elements: usize, raw: &mut Raw) -> Result<(), PackError> {
    let bits = rest.take(elements.div_ceil(8))?;
    let count: usize = bits.iter().map(|byte| byte.count_ones() as usize).sum();
    if !elements.is_multiple_of(8) && bits.last().is_some_and(|last| last >> (elements % 8) != 0) {
        return Err(PackError::Form);
    }
    let (values, _) = rest.take(4 * count)?.as_chunks::<4>();
    let mut at = 0;
    for (byte, left) in bits.iter().zip((0..elements).step_by(8)) {
        let mut group = [ZERO; 8];
        for (bit, element) in group.iter_mut().enumerate() {
            let is_set = usize::from(byte >> bit & 1);
            // The next value, which the last ones of all have not; no branch here, either.
            let value = u32::from_le_bytes(values.get(at).copied().unwrap_or(ZERO));
            *element = (value * is_set as u32).to_le_bytes();
            at += is_set;
        }
        raw.extend_from_slice(&group[..8.min(elements - left)]);
    }
    Ok(())
}

fn unpack_palette(rest: &mut Rest<'_>, elements: usize, raw: &mut Raw) -> Result<(), PackError> {
    let count = usize::from(rest.take(1)?[0]) + 1;
    let (values, _) = rest.take(4 * count)?.as_chunks::<4>();
    let places = rest.take(elements)?;
    // The largest of all, and not whether any is too large: many are compared at once where the
    // first does not end it.
    if usize::from(places.iter().copied().fold(0, u8::max)) >= count {
        return Err(PackError::Form);
    }
    let mut all = [ZERO; 256];
    all[..count].copy_from_slice(values);
    raw.extend(places.iter().map(|place| all[usize::from(*place)]));
    Ok(())
}

/// Elements that have been unpacked: whole, so that they are written once, without zeros before.
type Raw = Vec<[u8; 4]>;

/// The values of a block, found again by a hash of their bits.
struct Palette {
    values: Vec<[u8; 4]>,
    // One more than the place among the values; zero where there is none.
    slots: Box<[u16; SLOTS]>,
}

impl Default for Palette {
    fn default() -> Self {
        Self { values: Vec::with_capacity(VALUES_MAX), slots: Box::new([0; SLOTS]) }
    }
}

impl Palette {
    /// The block by its values; nothing where they are too many.
    fn learn<'a>(&mut self, elements: &[[u8; 4]]) -> Option<Block<'a>> {
        self.values.clear();
        self.slots.fill(0);
        let mut places = Vec::with_capacity(elements.len());
        for value in elements {
            let slot = self.slot(*value);
            if self.slots[slot] == 0 {
                if self.values.len() == VALUES_MAX {
                    return None;
                }
                self.values.push(*value);
                self.slots[slot] = self.values.len() as u16;
            }
            places.push((self.slots[slot] - 1) as u8);
        }
        Some(Block::Palette(self.values.clone(), places))
    }

    /// Where a value is, or where there is room for it: a quarter of the slots are ever taken.
    fn slot(&self, value: [u8; 4]) -> usize {
        let mut slot = (u32::from_le_bytes(value).wrapping_mul(HASH) >> (32 - SLOTS_LOG)) as usize;
        while let Some(place) = usize::from(self.slots[slot]).checked_sub(1) {
            if self.values[place] == value {
                break;
            }
            slot = (slot + 1) % SLOTS;
        }
        slot
    }
}

/// Packed bytes that have not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PackError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PackError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Large enough that a palette of 256 values is a small part of it.
const BLOCK: usize = 16 * 1024;
const GROUP: usize = 32;
/// What is small goes in one packet anyway.
const BYTES_MIN: usize = 1024;
/// To save less than this is not worth what it takes to unpack.
const SHARE_MAX: f64 = 0.9;
const ZERO: [u8; 4] = [0; 4];
/// What a byte tells apart.
const VALUES_MAX: usize = 256;
const SLOTS_LOG: u32 = 10;
const SLOTS: usize = 1 << SLOTS_LOG;
/// Odd, and near the golden section of all 32-bit numbers, as Knuth has it for such a hash.
const HASH: u32 = 0x9e37_79b9;

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

    use super::*;

    fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
        values.into_iter().flat_map(f32::to_le_bytes).collect()
    }

    /// A number that tells elements apart without repeating soon.
    fn noise(at: usize) -> f32 {
        f32::from_bits(0x3f80_0000 | (at as u32).wrapping_mul(0x0019_660d) >> 9)
    }

    fn check(values: Vec<f32>, packed_bytes: Option<usize>) {
        let raw = bytes(values);
        let packed = pack(&raw);
        assert_eq!(packed.as_ref().map(Vec::len), packed_bytes);
        if let Some(packed) = packed {
            assert_eq!(unpack(&packed, raw.len()).as_ref(), Ok(&raw));
        }
    }

    #[test]
    fn each_block_takes_its_shortest_form() {
        let noisy = |count: usize| (0..count).map(noise).collect::<Vec<f32>>();
        check(noisy(1000), None);
        check(vec![1.5; BYTES_MIN / 4 - 1], None);
        // One value in one block, and in two.
        check(vec![1.5; 300], Some(2 + 4 + 300));
        check(vec![1.5; BLOCK + 1], Some(2 + 4 + BLOCK + 5));
        // Half of them zero.
        let half = |at: usize| if at.is_multiple_of(2) { 0.0 } else { noise(at) };
        check((0..1000).map(half).collect(), Some(1 + 125 + 2000));
        // A picture's channel, and then noise that stays plain.
        let picture = (0..BLOCK).map(|at| (at * 7 % 256) as f32 / 255.0 - 0.5);
        let both: Vec<f32> = picture.chain(noisy(100)).collect();
        check(both, Some(2 + 4 * 256 + BLOCK + 1 + 400));
    }

    #[test]
    fn bits_stay_as_they_are() {
        let odd = [-0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::from_bits(1), 0.0];
        let raw = bytes(odd.into_iter().cycle().take(600));
        let packed = pack(&raw).expect("six values");
        assert_eq!(unpack(&packed, raw.len()), Ok(raw));
    }

    #[test]
    fn what_is_not_packed_is_refused() {
        let refused = |packed: &[u8], raw: usize, error| {
            assert_eq!(unpack(packed, raw), Err(error), "{packed:?}");
        };
        refused(&[], 4, PackError::Truncated);
        refused(&[0, 1, 2, 3], 4, PackError::Truncated);
        refused(&[0, 1, 2, 3, 4, 5], 4, PackError::Rest);
        refused(&[3, 0, 0, 0, 0], 4, PackError::Form);
        // A bit for a ninth element of eight; a value that is not there.
        refused(&[1, 0b10, 1, 2, 3, 4], 4, PackError::Form);
        refused(&[1, 0b1, 1, 2, 3], 4, PackError::Truncated);
        // The second value of one.
        refused(&[2, 0, 1, 2, 3, 4, 1], 4, PackError::Form);
        assert_eq!(unpack(&[], 0), Ok(vec![]));
    }

    /// Elements as between layers: some zero, some of few values, some of many.
    #[derive(Clone, Debug)]
    struct Elements(Vec<f32>);

    impl Arbitrary for Elements {
        fn arbitrary(g: &mut Gen) -> Self {
            let (zeros, values) = (u32::arbitrary(g) % 10, 1 + u32::arbitrary(g) % 400);
            let count = usize::arbitrary(g) % (2 * BLOCK + 100);
            let element = |g: &mut Gen| {
                let zero = u32::arbitrary(g) % 10 < zeros;
                if zero { 0.0 } else { f32::from_bits(u32::arbitrary(g) % values) }
            };
            Self((0..count).map(|_| element(g)).collect())
        }
    }

    quickcheck! {
        fn what_is_packed_comes_out_again(elements: Elements) -> TestResult {
            let raw = bytes(elements.0);
            let Some(packed) = pack(&raw) else { return TestResult::discard() };
            let shorter = packed.len() as f64 <= raw.len() as f64 * SHARE_MAX;
            TestResult::from_bool(shorter && unpack(&packed, raw.len()) == Ok(raw))
        }

        fn any_bytes_are_unpacked_or_refused(packed: Vec<u8>, elements: u16) -> bool {
            let raw = usize::from(elements) * 4;
            unpack(&packed, raw).is_ok_and(|found| found.len() == raw) || raw > 0 || !packed.is_empty()
        }

        fn no_cut_is_taken_for_the_whole(elements: Elements, end: usize) -> TestResult {
            let raw = bytes(elements.0);
            let Some(packed) = pack(&raw).filter(|packed| !packed.is_empty()) else {
                return TestResult::discard();
            };
            TestResult::from_bool(unpack(&packed[..end % packed.len()], raw.len()).is_err())
        }
    }
}
