//! What the pieces of a plan in the making leave of each worker's memory and places.

use super::{
    case::{Case, Segment},
    predict::Task,
    worker::Worker,
};

/// Memory and places that are still free, by worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    memory: Vec<u64>,
    places: Vec<u16>,
}

impl Room {
    /// Everything that the workers offer.
    pub(super) fn new(workers: &[Worker]) -> Self {
        let memory = workers.iter().map(|worker| worker.provider.memory_free).collect();
        Self { memory, places: workers.iter().map(|worker| worker.room).collect() }
    }

    /// The same, however many pieces each takes.
    pub(super) fn of_memory(workers: &[Worker]) -> Self {
        Self { places: vec![u16::MAX; workers.len()], ..Self::new(workers) }
    }

    /// Bytes of weights that each worker can still take: none where it takes no more pieces.
    pub(super) fn memory(&self) -> Vec<u64> {
        let free = self.memory.iter().zip(&self.places);
        free.map(|(memory, places)| if *places > 0 { *memory } else { 0 }).collect()
    }

    /// What is left with these pieces; nothing if there is too little for them.
    pub(super) fn with(&self, tasks: &[Task]) -> Option<Self> {
        let mut left = self.clone();
        for task in tasks {
            let memory = left.memory.get_mut(task.worker)?;
            *memory = memory.checked_sub(task.cost.weight_bytes)?;
            let places = left.places.get_mut(task.worker)?;
            *places = places.checked_sub(1)?;
        }
        Some(left)
    }

    /// Takes the first of some ways to compute a segment that there is memory for, and that leaves
    /// some of the workers enough for all layers to come.
    pub(super) fn first_of(
        &mut self,
        case: &Case<'_>,
        ways: &[Segment],
        team: &[usize],
    ) -> Option<Segment> {
        let (way, left) = ways.iter().find_map(|way| {
            let left = self.with(&case.tasks(way))?;
            let rest = case.weights_from(way.first()?.0.layers.end);
            left.could_take(rest, team.iter().copied()).then_some((way, left))
        })?;
        *self = left;
        Some(way.clone())
    }

    /// Whether some of the workers together could take so many bytes of weights, if these were
    /// divided as finely as that needs.
    pub(super) fn could_take(&self, bytes: u64, team: impl IntoIterator<Item = usize>) -> bool {
        let memory = self.memory();
        let free = team.into_iter().filter_map(|at| memory.get(at));
        free.fold(0_u64, |sum, free| sum.saturating_add(*free)) >= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::PieceProfile, partition::fixtures::worker, plan::LayerRange};

    fn task(worker: usize, weight_bytes: u64) -> Task {
        Task {
            worker,
            layers: LayerRange { first: 0, end: 1 },
            seconds: 1.0,
            takes: Vec::new(),
            makes: Vec::new(),
            cost: PieceProfile { weight_bytes, ..PieceProfile::default() },
        }
    }

    #[test]
    fn memory_and_places_run_out() {
        let mut workers = [worker(1, 1, 1.0), worker(2, 1, 1.0)];
        for (worker, room) in workers.iter_mut().zip([2, 1]) {
            (worker.provider.memory_free, worker.room) = (10, room);
        }
        let all = Room::new(&workers);
        let left = all.with(&[task(0, 4), task(1, 10)]).expect("enough");
        assert_eq!(left.memory(), [6, 0]);
        assert!(left.could_take(6, 0..2) && !left.could_take(7, 0..2));
        assert_eq!(left.with(&[task(0, 7)]), None, "no memory");
        assert_eq!(left.with(&[task(1, 0)]), None, "no place");
        assert_eq!(left.with(&[task(2, 0)]), None, "nobody");
    }
}
