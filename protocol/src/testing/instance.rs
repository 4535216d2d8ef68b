//! Instances of the proportional-fair assignment problem.

use quickcheck::{Arbitrary, Gen};

use crate::{
    id::NodeId,
    nats::{Nats, slot_cost},
};

/// Pieces, providers, and what each pair is worth. Up to 12 x 6 when drawn by quickcheck, with
/// forbidden pairs, tight capacities and many ties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `ln r_ij` by piece, then provider; nothing where the pair is infeasible.
    pub log_rates: Vec<Vec<Option<Nats>>>,
    /// `Q_j` by provider.
    pub capacity: Vec<u16>,
}

impl Instance {
    /// `N`.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.log_rates.len()
    }

    /// `M`.
    #[must_use]
    pub fn providers(&self) -> usize {
        self.capacity.len()
    }

    /// `U = sum ln r_ij - sum n_j ln n_j` of a full assignment (provider by piece); nothing if it
    /// uses an infeasible pair or overfills a provider.
    #[must_use]
    pub fn utility(&self, assignment: &[usize]) -> Option<Nats> {
        let mut holders = vec![0_u16; self.providers()];
        let mut utility = Nats::ZERO;
        for (rates, provider) in self.log_rates.iter().zip(assignment) {
            holders[*provider] += 1;
            let cost = slot_cost(u32::from(holders[*provider]));
            utility = utility + (*rates.get(*provider)?)? - cost;
        }
        let fits = holders.iter().zip(&self.capacity).all(|(n, q)| n <= q);
        (fits && assignment.len() == self.pieces()).then_some(utility)
    }
}

/// The id of the `n`-th node of a test.
#[must_use]
pub fn node_id(n: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    NodeId(id)
}

/// The other way round.
pub(super) fn provider_of(node: &NodeId) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&node.0[..8]);
    usize::try_from(u64::from_be_bytes(first)).expect("made by node_id")
}

impl Arbitrary for Instance {
    fn arbitrary(g: &mut Gen) -> Self {
        let pieces = 1 + usize::arbitrary(g) % 12;
        let providers = 1 + usize::arbitrary(g) % 6;
        // Few distinct values make ties; a fine grid makes none.
        let grid = *g.choose(&[2_u32, 5, 1000]).expect("not empty");
        let forbidden_percent = *g.choose(&[0_u8, 10, 40, 70]).expect("not empty");
        let rate = |g: &mut Gen| {
            let forbidden = u8::arbitrary(g) % 100 < forbidden_percent;
            let step = f64::from(u32::arbitrary(g) % grid) / f64::from(grid);
            (!forbidden).then(|| Nats::from_f64(step * 4.0 - 1.0))
        };
        let log_rates = (0..pieces).map(|_| (0..providers).map(|_| rate(g)).collect()).collect();
        let capacity_max = *g.choose(&[1_u16, 3, 12]).expect("not empty");
        let capacity = (0..providers).map(|_| u16::arbitrary(g) % (capacity_max + 1)).collect();
        Self { log_rates, capacity }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let whole = self.clone();
        let fewer_pieces = (0..whole.pieces()).filter(move |_| whole.pieces() > 1).map({
            let whole = self.clone();
            move |gone| {
                let mut less = whole.clone();
                less.log_rates.remove(gone);
                less
            }
        });
        let whole = self.clone();
        let fewer_providers = (0..whole.providers()).filter(move |_| whole.providers() > 1).map({
            let whole = self.clone();
            move |gone| {
                let mut less = whole.clone();
                less.capacity.remove(gone);
                less.log_rates.iter_mut().for_each(|rates| {
                    rates.remove(gone);
                });
                less
            }
        });
        let simpler = (0..self.pieces() * self.providers()).filter_map({
            let whole = self.clone();
            move |at| {
                let mut less = whole.clone();
                let rate = &mut less.log_rates[at / whole.providers()][at % whole.providers()];
                let nats = (*rate)?.to_f64();
                // A whole number of nats is easier to read.
                *rate = Some(Nats::from_f64(nats.trunc()));
                (nats != nats.trunc()).then_some(less)
            }
        });
        Box::new(fewer_pieces.chain(fewer_providers).chain(simpler))
    }
}
