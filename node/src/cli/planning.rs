//! The flags that say how a model is divided among nodes.

use starling_engine::Model;
use starling_protocol::{
    model::ModelProfile,
    partition::{Goal, Planner},
    plan::{LayerRange, Piece, Plan},
    session::Planning,
};

use super::Failure;
use crate::convert;

/// How to divide the model.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// Who makes the plan
    #[arg(long, value_name = "NAME", default_value_t = Planner::Pf, value_parser = planner, help_heading = "Plan")]
    planner: Planner,
    /// What the plan is made for [default: latency for one inference, throughput for more]
    #[arg(long, value_enum, help_heading = "Plan")]
    goal: Option<GoalArg>,
    /// Cut the model before these layers instead of where the planner would
    #[arg(long, value_name = "LAYER,...", value_delimiter = ',', help_heading = "Plan")]
    cuts: Vec<u16>,
    /// Compute each segment between cuts in this many strips of equal height, side by side
    #[arg(long, value_name = "N,...", value_delimiter = ',', help_heading = "Plan", value_parser = clap::value_parser!(u16).range(1..=64))]
    strips: Vec<u16>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GoalArg {
    /// One inference as soon as possible
    Latency,
    /// As many inferences per second as possible
    Throughput,
}

impl PlanArgs {
    /// How to plan; for `default` unless the flags say for what.
    pub(super) fn planning(&self, model: &Model, default: Goal) -> Result<Planning, Failure> {
        if !self.cuts.is_empty() || !self.strips.is_empty() {
            return Ok(Planning::Fixed(self.fixed(model)?));
        }
        Ok(Planning::By(self.planner, self.goal(default)))
    }

    /// What the plan is made for; `default` unless the flags say.
    pub(super) fn goal(&self, default: Goal) -> Goal {
        match self.goal {
            Some(GoalArg::Latency) => Goal::Latency,
            Some(GoalArg::Throughput) => Goal::Throughput,
            None => default,
        }
    }

    /// Who makes the plan.
    pub(super) fn planner(&self) -> Planner {
        self.planner
    }

    /// Says that these flags make no sense with another one.
    pub(super) fn refuse(&self, with: &str) -> Result<(), Failure> {
        let none = self.cuts.is_empty() && self.strips.is_empty();
        if self.goal.is_none() && none && self.planner == Planner::Pf {
            return Ok(());
        }
        Err(Failure(format!(
            "{with} makes no plan: leave --planner, --goal, --cuts and --strips away"
        )))
    }

    fn fixed(&self, model: &Model) -> Result<Plan, Failure> {
        let profile = convert::model_profile(model, &[]).ok_or("the model has no layers")?;
        let layers = profile.layers();
        let pipeline = Plan::from_cuts(layers, &self.cuts).ok_or_else(|| {
            Failure(format!("--cuts: positions must rise, above 0 and below {layers}"))
        })?;
        if self.strips.is_empty() {
            return Ok(pipeline);
        }
        let segments: Vec<LayerRange> =
            pipeline.pieces().iter().map(|piece| piece.layers).collect();
        if self.strips.len() != segments.len() {
            return Err(Failure(format!(
                "--strips: one number for each of the {} segments that --cuts makes",
                segments.len()
            )));
        }
        let divided: Result<_, _> = segments
            .iter()
            .zip(&self.strips)
            .map(|(at, strips)| divide(&profile, *at, *strips))
            .collect();
        Plan::from_segments(divided?)
            .ok_or_else(|| Failure("--strips: more strips than a plan can have".to_owned()))
    }
}

/// Planners go by the names that the protocol has for them.
fn planner(name: &str) -> Result<Planner, String> {
    name.parse().map_err(|error: starling_protocol::partition::UnknownPlanner| error.to_string())
}

/// A segment in strips of equal height.
fn divide(profile: &ModelProfile, layers: LayerRange, strips: u16) -> Result<Vec<Piece>, Failure> {
    if strips == 1 {
        return Ok(vec![Piece::whole(layers)]);
    }
    let rows = profile.rows().filter(|rows| rows.splittable(layers));
    let rows = rows.ok_or_else(|| {
        Failure(format!(
            "--strips: layers {layers} can't be divided by rows (a sum over all rows is among them, \
             or a matrix product of what others of them make): give them 1"
        ))
    })?;
    let divided = rows.divide(layers.end, &vec![1.0; usize::from(strips)]);
    Ok(divided.into_iter().map(|rows| Piece { layers, rows }).collect())
}
