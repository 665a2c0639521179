//! Encoder and members, fitted on the same training rows, and how their scores become one.

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    balance::Balance,
    drift::Reference,
    features::{Encoder, Input, Known, Spec},
    matrix::Matrix,
    members::{Kind, Lesson, Member, Settings, logit, sigmoid},
    rarity::Rarity,
    table::{Table, Texts},
    threads,
};

/// Rows up to which finer trees cost little.
const FEW_ROWS: usize = 30_000;

/// Rows that members are asked about at once: they and a tree are in the processor's cache together.
const BLOCK: usize = 256;

/// How scores of members become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blend {
    /// The mean of how rare each score is among negative rows that the members have not seen. Scores of members differ in
    /// what they mean; a rarity of one in a hundred is the same for all, so a budget of false positives is, too.
    #[default]
    Rarity,
    /// The mean of scores.
    Vote,
    /// Weights fitted on rows that the members have not seen; none is negative.
    Stack,
}

/// What of the members' scores is weighed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Mix {
    /// The scores.
    Scores,
    /// Their logits, and a shift.
    Logits(f64),
    /// Their rarities.
    Rarities(Vec<Rarity>),
}

/// How members count.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighing {
    /// Of each member.
    pub weights: Vec<f64>,
    /// What is weighed.
    pub mix: Mix,
}

/// What a training is made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Features.
    pub spec: Spec,
    /// Members, in order, each once.
    pub members: Vec<Kind>,
    /// Of the members.
    pub settings: Settings,
    /// Of training rows.
    pub balance: Balance,
    /// Of scores.
    pub blend: Blend,
    /// Of everything random.
    pub seed: u64,
}

impl Recipe {
    /// What is good without looking: members that vote, weights by label, more and finer trees where rows are few. A budget
    /// of false positives is best met by rarity; the most accurate point by the mean.
    #[must_use]
    pub fn usual(budget: Option<f64>, rows: usize, seed: u64) -> Recipe {
        let mut settings = Settings::default();
        if rows <= FEW_ROWS {
            settings.forest.trees = 300;
            settings.boost.trees = 400;
            settings.boost.rate = 0.05;
        }
        Recipe {
            spec: Spec::default(),
            members: vec![Kind::Forest, Kind::Boost, Kind::Network],
            settings,
            balance: Balance::default(),
            blend: if budget.is_some() { Blend::Rarity } else { Blend::Vote },
            seed,
        }
    }
}

/// All known rows, with what is known of them.
pub struct Rows<'a> {
    /// The input.
    pub table: &'a Table,
    /// Columns that may be features.
    pub inputs: &'a [Input],
    /// Which rows are positive.
    pub positive: &'a [bool],
    /// The label of each row.
    pub classes: &'a Texts,
    /// Rows that must stay together.
    pub groups: &'a [u64],
    /// Equal rows have equal hashes.
    pub hashes: &'a [u64],
}

/// Encoder and members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Features.
    pub encoder: Encoder,
    /// In the order of the recipe.
    pub members: Vec<Member>,
    /// How much each member counts.
    pub weights: Vec<f64>,
    /// What is weighed.
    pub mix: Mix,
    /// What training rows looked like.
    pub reference: Reference,
}

impl Ensemble {
    /// Fits on the given rows; nothing else of the table is looked at.
    ///
    /// # Errors
    /// A feature cannot be made.
    pub fn fit(
        rows: &Rows<'_>,
        chosen: &[usize],
        recipe: &Recipe,
        threads: usize,
        mut trained: impl FnMut(Kind),
    ) -> Result<Ensemble, ModelError> {
        let (drawn, weights) = recipe.balance.apply(chosen, rows.positive, rows.classes, recipe.seed);
        let table = rows.table.take(&drawn);
        let positive: Vec<bool> = drawn.iter().map(|&row| rows.positive[row]).collect();
        let groups: Vec<u64> = drawn.iter().map(|&row| rows.groups[row]).collect();
        let known = Known { positive: &positive, groups: &groups, seed: recipe.seed };
        let (encoder, matrix) = Encoder::fit(&table, rows.inputs, &recipe.spec, &known)?;
        let lesson = Lesson { matrix: &matrix, positive: &positive, weights: &weights, seed: recipe.seed, threads };
        let mut members = Vec::new();
        for &kind in &recipe.members {
            members.push(Member::train(kind, &lesson, &recipe.settings));
            trained(kind);
        }
        let share = 1.0 / members.len().max(1) as f64;
        let reference = Reference::of(&matrix);
        Ok(Ensemble { encoder, weights: vec![share; members.len()], members, mix: Mix::Scores, reference })
    }

    /// The score of each member for each row of a table, member by member.
    ///
    /// # Errors
    /// A column is missing or of the wrong kind.
    pub fn member_scores(&self, table: &Table, threads: usize) -> Result<Vec<Vec<f64>>, ModelError> {
        let matrix = self.encoder.encode(table)?;
        Ok(self.scores_of(&matrix, threads))
    }

    /// The same of an encoded table.
    #[must_use]
    pub fn scores_of(&self, matrix: &Matrix, threads: usize) -> Vec<Vec<f64>> {
        let width = matrix.columns();
        let chunks = threads::map(threads, matrix.rows.div_ceil(BLOCK), |chunk| {
            let rows = chunk * BLOCK..((chunk + 1) * BLOCK).min(matrix.rows);
            let block = &matrix.values[rows.start * width..rows.end * width];
            self.members.iter().map(|member| member.scores(block, width, None)).collect::<Vec<_>>()
        });
        let mut scores = vec![Vec::with_capacity(matrix.rows); self.members.len()];
        for chunk in chunks {
            for (all, part) in scores.iter_mut().zip(chunk) {
                all.extend(part);
            }
        }
        scores
    }

    /// The score of each member for each row, and what each column changed: as many numbers a row as the matrix has columns.
    #[must_use]
    pub fn explained(&self, matrix: &Matrix) -> (Vec<Vec<f64>>, Vec<f64>) {
        let width = matrix.columns();
        let mut effects = vec![0.0; matrix.values.len()];
        let mut scores = vec![Vec::with_capacity(matrix.rows); self.members.len()];
        for (rows, effects) in matrix.values.chunks(BLOCK * width).zip(effects.chunks_mut(BLOCK * width)) {
            for (scores, member) in scores.iter_mut().zip(&self.members) {
                scores.extend(member.scores(rows, width, Some(effects)));
            }
        }
        let said = self.members.iter().filter(|m| !matches!(m.kind(), Kind::Network | Kind::Isolation)).count();
        effects.iter_mut().for_each(|effect| *effect /= said.max(1) as f64);
        (scores, effects)
    }

    /// One score of the members' scores of a row.
    #[must_use]
    pub fn blend(&self, scores: impl Iterator<Item = f64>) -> f64 {
        blend(&self.weights, &self.mix, scores)
    }

    /// The blended score of each row.
    #[must_use]
    pub fn blended(&self, member_scores: &[Vec<f64>]) -> Vec<f64> {
        rows_of(member_scores).map(|scores| self.blend(scores)).collect()
    }

    /// How members are to count, by how they did on rows that they have not seen.
    #[must_use]
    pub fn weighing(&self, how: Blend, member_scores: &[Vec<f64>], positive: &[bool]) -> Weighing {
        let votes: Vec<f64> = self.members.iter().map(|member| member.kind().votes()).collect();
        let all: f64 = votes.iter().sum();
        let weights = votes.iter().map(|votes| votes / all).collect();
        match how {
            Blend::Vote => Weighing { weights, mix: self.mix.clone() },
            Blend::Stack => {
                let (weights, shift) = stack(member_scores, positive);
                Weighing { weights, mix: Mix::Logits(shift) }
            }
            Blend::Rarity => {
                let rarities = member_scores.iter().map(|scores| Rarity::fit(scores, positive)).collect();
                Weighing { weights, mix: Mix::Rarities(rarities) }
            }
        }
    }

    /// Sets how members count.
    pub fn weigh(&mut self, how: Blend, member_scores: &[Vec<f64>], positive: &[bool]) {
        let Weighing { weights, mix } = self.weighing(how, member_scores, positive);
        (self.weights, self.mix) = (weights, mix);
    }

    /// Whether a stored ensemble is sound.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let columns = self.encoder.check()?;
        if self.members.is_empty() || self.members.len() > 16 || self.members.len() != self.weights.len() {
            return Err(format!("{} members with {} weights", self.members.len(), self.weights.len()));
        }
        let sound = match &self.mix {
            Mix::Scores => true,
            Mix::Logits(shift) => shift.is_finite(),
            Mix::Rarities(rarities) => rarities.len() == self.members.len() && rarities.iter().all(Rarity::is_sound),
        };
        if !sound || !self.weights.iter().all(|weight| weight.is_finite()) {
            return Err("weights of members that do not fit".to_owned());
        }
        self.reference.check(columns)?;
        self.members.iter().try_for_each(|member| member.check(columns))
    }
}

impl Weighing {
    /// One score of the members' scores of a row.
    #[must_use]
    pub fn blend(&self, scores: impl Iterator<Item = f64>) -> f64 {
        blend(&self.weights, &self.mix, scores)
    }

    /// The blended score of each row.
    #[must_use]
    pub fn blended(&self, member_scores: &[Vec<f64>]) -> Vec<f64> {
        rows_of(member_scores).map(|scores| self.blend(scores)).collect()
    }
}

fn blend(weights: &[f64], mix: &Mix, scores: impl Iterator<Item = f64>) -> f64 {
    let weighed = scores.zip(weights);
    match mix {
        Mix::Scores => weighed.map(|(score, weight)| score * weight).sum(),
        Mix::Logits(shift) => sigmoid(weighed.fold(*shift, |sum, (score, weight)| sum + logit(score) * weight)),
        Mix::Rarities(rarities) => {
            let sum: f64 = weighed.zip(rarities).map(|((score, weight), rarity)| weight * rarity.of(score)).sum();
            -(-sum / Rarity::SCALE).exp_m1()
        }
    }
}

/// The members' scores, row by row.
fn rows_of(member_scores: &[Vec<f64>]) -> impl Iterator<Item = impl Iterator<Item = f64> + '_> {
    let rows = member_scores.first().map_or(0, Vec::len);
    (0..rows).map(move |row| member_scores.iter().map(move |scores| scores[row]))
}

/// Weights of logits, none negative, by projected gradient steps on the likelihood.
fn stack(member_scores: &[Vec<f64>], positive: &[bool]) -> (Vec<f64>, f64) {
    let members = member_scores.len();
    let logits: Vec<Vec<f64>> =
        member_scores.iter().map(|scores| scores.iter().map(|&s| logit(s).clamp(-8.0, 8.0)).collect()).collect();
    let rows = positive.len().max(1) as f64;
    let mut weights = vec![1.0 / members as f64; members];
    let mut shift = 0.0;
    for _ in 0..300 {
        let mut gradients = vec![0.0; members];
        let mut gradient = 0.0;
        for (row, &is) in positive.iter().enumerate() {
            let sum = logits.iter().zip(&weights).fold(shift, |sum, (logits, weight)| sum + logits[row] * weight);
            let error = (sigmoid(sum) - f64::from(u8::from(is))) / rows;
            gradient += error;
            gradients.iter_mut().zip(&logits).for_each(|(gradient, logits)| *gradient += error * logits[row]);
        }
        shift -= 0.3 * gradient;
        weights
            .iter_mut()
            .zip(&gradients)
            .for_each(|(weight, gradient)| *weight = f64::max(0.0, *weight - 0.05 * gradient));
    }
    (weights, shift)
}
