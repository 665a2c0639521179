//! The members of an ensemble, each of which can be left out: what they are called, trained and asked.

pub mod boost;
pub mod forest;
pub mod isolation;
pub mod logistic;
pub mod network;
pub mod scale;
pub mod text;

use serde::{Deserialize, Serialize};

use crate::matrix::Matrix;

/// Which member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Logistic regression: the floor.
    Logistic,
    /// Random forest.
    Forest,
    /// Gradient boosting.
    Boost,
    /// Neural network.
    Network,
    /// Isolation forest on the negative class: what is unlike it.
    Isolation,
}

impl Kind {
    /// All, in the order in which they are trained and reported.
    pub const ALL: [Kind; 5] = [Kind::Logistic, Kind::Forest, Kind::Boost, Kind::Network, Kind::Isolation];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Logistic => "logistic",
            Kind::Forest => "forest",
            Kind::Boost => "boost",
            Kind::Network => "network",
            Kind::Isolation => "isolation",
        }
    }

    /// How much it counts where rarities are weighed: on kinds of attack that were kept out of training (`models-campaign
    /// novel`) trees found half as many again as the network, and twice what the others found.
    #[must_use]
    pub fn votes(self) -> f64 {
        match self {
            Kind::Forest | Kind::Boost => 1.0,
            Kind::Logistic | Kind::Network | Kind::Isolation => 0.25,
        }
    }

    /// From the command line.
    #[must_use]
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A trained member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Member {
    /// Logistic regression.
    Logistic(logistic::Logistic),
    /// Random forest.
    Forest(forest::Forest),
    /// Gradient boosting.
    Boost(boost::Boost),
    /// Neural network.
    Network(network::Network),
    /// Isolation forest.
    Isolation(isolation::Isolation),
}

/// Rows to learn from.
pub struct Lesson<'a> {
    /// Features.
    pub matrix: &'a Matrix,
    /// Whether the row is of the positive class.
    pub positive: &'a [bool],
    /// Weights, with mean 1.
    pub weights: &'a [f32],
    /// Of everything random.
    pub seed: u64,
    /// Threads at most; they change nothing but the time.
    pub threads: usize,
}

/// Settings of all members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Of the forest.
    pub forest: forest::Settings,
    /// Of boosting.
    pub boost: boost::Settings,
    /// Of the network.
    pub network: network::Settings,
    /// Of logistic regression.
    pub logistic: logistic::Settings,
    /// Of the isolation forest.
    pub isolation: isolation::Settings,
}

impl Member {
    /// Trains a member.
    #[must_use]
    pub fn train(kind: Kind, lesson: &Lesson<'_>, settings: &Settings) -> Member {
        match kind {
            Kind::Logistic => Member::Logistic(logistic::Logistic::train(lesson, &settings.logistic)),
            Kind::Forest => Member::Forest(forest::Forest::train(lesson, &settings.forest)),
            Kind::Boost => Member::Boost(boost::Boost::train(lesson, &settings.boost)),
            Kind::Network => Member::Network(network::Network::train(lesson, &settings.network)),
            Kind::Isolation => Member::Isolation(isolation::Isolation::train(lesson, &settings.isolation)),
        }
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Member::Logistic(_) => Kind::Logistic,
            Member::Forest(_) => Kind::Forest,
            Member::Boost(_) => Kind::Boost,
            Member::Network(_) => Kind::Network,
            Member::Isolation(_) => Kind::Isolation,
        }
    }

    /// A score in `0..=1` that rises with the likelihood of the positive class.
    #[must_use]
    pub fn score(&self, row: &[f32]) -> f64 {
        self.scores(row, row.len(), None).first().copied().unwrap_or(0.0)
    }

    /// Scores of a block of rows of `width` cells each. With `effects`, of as many cells, also adds to them what each column
    /// changed, on the scale of the score; members that cannot say add nothing. What else is in a block changes nothing.
    #[must_use]
    pub fn scores(&self, rows: &[f32], width: usize, mut effects: Option<&mut [f64]>) -> Vec<f64> {
        if let (Member::Logistic(member), Some(effects)) = (self, effects.as_deref_mut()) {
            for (row, effects) in rows.chunks_exact(width).zip(effects.chunks_exact_mut(width)) {
                member.contribute(row, effects);
            }
        }
        match self {
            Member::Forest(member) => member.scores(rows, width, effects),
            Member::Boost(member) => member.scores(rows, width, effects),
            Member::Logistic(member) => rows.chunks_exact(width).map(|row| member.score(row)).collect(),
            Member::Network(member) => member.scores(rows, width),
            Member::Isolation(member) => member.scores(rows, width),
        }
    }

    /// Whether a stored member can be asked about rows of `columns` cells.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, columns: usize) -> Result<(), String> {
        match self {
            Member::Logistic(member) => member.check(columns),
            Member::Forest(member) => member.check(columns),
            Member::Boost(member) => member.check(columns),
            Member::Network(member) => member.check(columns),
            Member::Isolation(member) => member.check(columns),
        }
    }
}

/// The logistic function.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Its inverse, bounded.
#[must_use]
pub fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-9, 1.0 - 1e-9);
    (p / (1.0 - p)).ln()
}
