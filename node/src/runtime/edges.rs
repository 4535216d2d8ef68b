//! What passes between pieces: the rows of their outputs that each target takes, cut out, and the
//! parts of an input that several sources made, put together.

use std::collections::BTreeMap;

use starling_engine::{Tensor, TensorInfo};
use starling_protocol::{rows::RowRange, wiring::Link};

use crate::{
    convert,
    net::{TensorBytes, Timing},
};

/// The rows that someone has of each tensor alive across a cut.
#[derive(Clone, Debug)]
pub(super) struct Frontier {
    infos: Vec<TensorInfo>,
    rows: Vec<RowRange>,
}

/// One source's part of an input.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// One for each tensor of which the link has rows.
    pub(super) tensors: Vec<Tensor>,
    /// Where the time went so far.
    pub(super) trace: Vec<Timing>,
}

impl Frontier {
    /// All rows of these tensors.
    pub(super) fn whole(infos: &[TensorInfo]) -> Self {
        let all = |info: &TensorInfo| starling_engine::RowRange::all(&info.shape);
        let rows: Vec<_> = infos.iter().map(all).collect();
        Self { infos: infos.to_vec(), rows: convert::protocol_rows(&rows) }
    }

    /// These rows of these tensors.
    pub(super) fn strip(infos: &[TensorInfo], rows: &[starling_engine::RowRange]) -> Self {
        Self { infos: infos.to_vec(), rows: convert::protocol_rows(rows) }
    }

    /// Whether a link asks for no more than there is.
    pub(super) fn has(&self, link: &Link) -> bool {
        let within = |(have, asked): (&RowRange, RowRange)| {
            asked.is_empty() || (have.first <= asked.first && asked.end <= have.end)
        };
        (link.rows.is_empty() || link.rows.len() == self.rows.len())
            && self.rows.iter().zip(self.of(link)).all(within)
    }

    /// Whether these sources together send every row of this, each source's after those of the one
    /// before.
    pub(super) fn is_covered_by(&self, sources: &[Link]) -> bool {
        (0..self.rows.len()).all(|at| {
            let sent = sources.iter().filter_map(|link| self.of(link).get(at).copied());
            let follow = |hull: RowRange, rows: RowRange| match (hull.is_empty(), rows.is_empty()) {
                (_, true) => Some(hull),
                (true, false) => Some(rows),
                (false, false) => (hull.end == rows.first).then(|| hull.hull(rows)),
            };
            let hull = sent.into_iter().try_fold(RowRange::EMPTY, follow);
            let needed = self.rows[at];
            hull.is_some_and(|hull| needed.is_empty() || hull.hull(needed) == hull)
        }) && sources.iter().all(|link| self.of(link).len() == self.rows.len())
    }

    /// The rows that a link carries of each tensor: where it says nothing, all that there are.
    fn of(&self, link: &Link) -> Vec<RowRange> {
        if link.rows.is_empty() { self.rows.clone() } else { link.rows.clone() }
    }

    /// Cuts a link's rows out of `tensors`, which are the rows of this frontier.
    ///
    /// # Errors
    /// If it asks for rows that are not there.
    pub(super) fn cut(&self, tensors: &[Tensor], link: &Link) -> Result<Vec<TensorBytes>, String> {
        let asked = self.of(link);
        let mut held = tensors.iter();
        let mut cut = Vec::with_capacity(tensors.len());
        for (have, rows) in self.rows.iter().zip(asked) {
            if have.is_empty() {
                continue;
            }
            let tensor = held.next().ok_or("fewer tensors than there should be")?;
            if !rows.is_empty() {
                cut.push(convert::to_wire(crop(tensor.clone(), *have, rows)?));
            }
        }
        Ok(cut)
    }

    /// The tensors of a link's part, as they came.
    ///
    /// # Errors
    /// If they are not those that the link promises, of the shapes that its rows have.
    pub(super) fn part(
        &self,
        tensors: Vec<TensorBytes>,
        link: &Link,
    ) -> Result<Vec<Tensor>, String> {
        let rows = self.of(link);
        let sent = || self.infos.iter().zip(&rows).filter(|(_, rows)| !rows.is_empty());
        let infos: Vec<&TensorInfo> = sent().map(|(info, _)| info).collect();
        let tensors = convert::from_wire(tensors, infos.into_iter())?;
        let right = |(tensor, (info, rows)): (&Tensor, (&TensorInfo, &RowRange))| {
            with_height(&info.shape, rows.len()) == tensor.shape()
        };
        if tensors.iter().zip(sent()).all(right) {
            Ok(tensors)
        } else {
            Err("tensors of other shapes than agreed".to_owned())
        }
    }

    /// Puts the parts of all sources together, each as [`part`](Self::part) gave it, to the rows
    /// of this frontier. A source may have sent more than is needed, if that came cheaper.
    ///
    /// # Errors
    /// If something is missing.
    pub(super) fn join(
        &self,
        parts: Vec<Vec<Tensor>>,
        sources: &[Link],
    ) -> Result<Vec<Tensor>, String> {
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        let sent: Vec<Vec<RowRange>> = sources.iter().map(|link| self.of(link)).collect();
        let mut joined = Vec::with_capacity(self.rows.len());
        for (at, needed) in self.rows.iter().enumerate() {
            let mut strips = Vec::with_capacity(parts.len());
            let mut hull = RowRange::EMPTY;
            for (part, rows) in parts.iter_mut().zip(&sent) {
                let rows = rows.get(at).copied().unwrap_or_default();
                if rows.is_empty() {
                    continue;
                }
                if !hull.is_empty() && hull.end != rows.first {
                    return Err(format!("rows {hull} and {rows} don't follow each other"));
                }
                hull = hull.hull(rows);
                strips.push(part.next().ok_or("a part with a tensor too few")?);
            }
            if !needed.is_empty() {
                let all = Tensor::join_rows(&strips).map_err(|error| error.to_string())?;
                joined.push(crop(all, hull, *needed)?);
            }
        }
        Ok(joined)
    }

    /// Bytes of these rows.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |(info, rows): (&TensorInfo, &RowRange)| {
            let height = starling_engine::RowRange::all(&info.shape).len().max(1) as u64;
            info.bytes() / height * u64::from(rows.len())
        };
        self.infos.iter().zip(&self.rows).map(bytes).sum()
    }
}

/// Some rows of a tensor that is the rows `have`.
fn crop(tensor: Tensor, have: RowRange, rows: RowRange) -> Result<Tensor, String> {
    if rows == have {
        return Ok(tensor);
    }
    if rows.first < have.first || rows.end > have.end {
        return Err(format!("rows {rows} of a tensor of which only {have} are here"));
    }
    let range = starling_engine::RowRange::new(
        (rows.first - have.first) as usize,
        (rows.end - have.first) as usize,
    );
    tensor.rows(range).map_err(|error| error.to_string())
}

fn with_height(shape: &[usize], rows: u32) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let [_, _, height, _] | [1, height] = &mut shape[..] {
        *height = rows as usize;
    }
    shape
}

/// The timings of all parts, each piece's once.
pub(super) fn merged(traces: impl IntoIterator<Item = Vec<Timing>>) -> Vec<Timing> {
    let all = traces.into_iter().flatten().map(|timing| (timing.index, timing));
    all.collect::<BTreeMap<u16, Timing>>().into_values().collect()
}

#[cfg(test)]
mod tests {
    use starling_engine::DType;
    use starling_protocol::NodeId;

    use super::*;

    fn info(height: usize) -> TensorInfo {
        TensorInfo { name: "x".to_owned(), dtype: DType::F32, shape: vec![1, 2, height, 3] }
    }

    fn image(height: usize) -> Tensor {
        let values = (0..2 * height * 3).map(|value| value as f32).collect();
        Tensor::from_f32(vec![1, 2, height, 3], values).expect("as many values as the shape says")
    }

    fn link(rows: &[(u32, u32)]) -> Link {
        let rows = rows.iter().map(|(first, end)| RowRange::new(*first, *end)).collect();
        Link { piece: 0, node: NodeId([0; 32]), rows }
    }

    fn rows(first: usize, end: usize) -> starling_engine::RowRange {
        starling_engine::RowRange::new(first, end)
    }

    #[test]
    fn what_is_cut_for_many_is_put_together_by_one() {
        let infos = [info(8), info(4)];
        let sender = Frontier::whole(&infos);
        let tensors = [image(8), image(4)];
        let links = [link(&[(0, 3), (0, 0)]), link(&[(3, 6), (0, 4)]), link(&[(6, 8), (0, 0)])];
        let receiver = Frontier::strip(&infos, &[rows(1, 7), rows(2, 4)]);
        let parts: Vec<Vec<Tensor>> = links
            .iter()
            .map(|link| {
                assert!(sender.has(link));
                let sent = sender.cut(&tensors, link).expect("these rows are there");
                receiver.part(sent, link).expect("as agreed")
            })
            .collect();
        let joined = receiver.join(parts, &links).expect("nothing is missing");
        assert_eq!(joined[0].as_f32(), image(8).rows(rows(1, 7)).expect("there").as_f32());
        assert_eq!(joined[1].as_f32(), image(4).rows(rows(2, 4)).expect("there").as_f32());
    }

    #[test]
    fn features_are_cut_and_joined_like_rows() {
        let info = |features| TensorInfo {
            name: "y".to_owned(),
            dtype: DType::F32,
            shape: vec![1, features],
        };
        let all = Tensor::from_f32(vec![1, 10], (0..10).map(|value| value as f32).collect());
        let all = all.expect("as many values as the shape says");
        let receiver = Frontier::whole(&[info(10)]);
        let links = [link(&[(0, 3)]), link(&[(3, 10)])];
        let parts: Vec<Vec<Tensor>> = [(0, 3), (3, 10)]
            .into_iter()
            .zip(&links)
            .map(|((first, end), link)| {
                // A strip's slice knows of no other features.
                let strip = Frontier::strip(&[info(end - first)], &[rows(first, end)]);
                assert!(strip.has(link) && strip.bytes() == 4 * (end - first) as u64);
                let made = all.rows(rows(first, end)).expect("there");
                let sent = strip.cut(&[made], link).expect("these features are there");
                assert_eq!(sent[0].shape, [1, (end - first) as u32]);
                receiver.part(sent, link).expect("as agreed")
            })
            .collect();
        assert!(receiver.is_covered_by(&links));
        let joined = receiver.join(parts, &links).expect("nothing is missing");
        assert_eq!(joined[0].as_f32(), all.as_f32());
    }

    #[test]
    fn a_strip_passes_on_what_it_has_and_no_more() {
        let infos = [info(8), info(4)];
        let strip = Frontier::strip(&infos, &[rows(2, 5), rows(0, 0)]);
        let made = image(8).rows(rows(2, 5)).expect("there");
        let sent = strip.cut(&[made], &link(&[(3, 5), (0, 0)])).expect("it has these");
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].shape, [1, 2, 2, 3]);
        assert!(!strip.has(&link(&[(1, 5), (0, 0)])));
        assert!(!strip.has(&link(&[(2, 5)])));
        assert!(strip.has(&link(&[])));
        assert!(strip.is_covered_by(&[link(&[(0, 3), (0, 0)]), link(&[(3, 6), (0, 0)])]));
        assert!(!strip.is_covered_by(&[link(&[(0, 3), (0, 0)]), link(&[(4, 6), (0, 0)])]));
        assert!(!strip.is_covered_by(&[link(&[(3, 8), (0, 0)])]));
        assert!(!strip.is_covered_by(&[link(&[(0, 8)])]));
        assert_eq!(strip.bytes(), 3 * 3 * 2 * 4);
    }

    #[test]
    fn parts_that_are_not_as_agreed_are_refused() {
        let infos = [info(8)];
        let receiver = Frontier::strip(&infos, &[rows(0, 6)]);
        let wire = |tensor: Tensor| vec![convert::to_wire(tensor)];
        assert!(receiver.part(wire(image(4)), &link(&[(0, 3)])).is_err());
        assert!(receiver.part(Vec::new(), &link(&[(0, 3)])).is_err());
        let part = |height, range| receiver.part(wire(image(height)), &link(&[range]));
        let gap = vec![part(3, (0, 3)).expect("right"), part(2, (4, 6)).expect("right")];
        assert!(receiver.join(gap, &[link(&[(0, 3)]), link(&[(4, 6)])]).is_err());
        let short = vec![part(3, (0, 3)).expect("right")];
        assert!(receiver.join(short, &[link(&[(0, 3)])]).is_err());
    }
}
