//! A trained model with all that a prediction needs, and its file.
//!
//! The file is data only: a magic, a length, the fields. Reading has a bound on size, refuses what is left over, and
//! checks every index and number before anything is predicted.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    ModelError,
    calibrate::{Calibration, Conformal},
    ensemble::Ensemble,
    features::{Input, causal::Causal},
    matrix::Matrix,
    table::Table,
};

/// Bytes of a model file at most.
pub const BYTES_MAX: usize = 512 << 20;
/// Begins every model file; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"CFMODEL\x01";

/// A trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What for.
    pub task: String,
    /// What is looked back on before anything else.
    pub history: Option<Causal>,
    /// Columns that it needs, those of the history among them.
    pub inputs: Vec<Input>,
    /// Encoder, members and how they count.
    pub ensemble: Ensemble,
    /// From blended score to probability.
    pub calibration: Calibration,
    /// Above this probability the verdict is "true".
    pub threshold: f64,
    /// When the verdict is "unknown".
    pub conformal: Conformal,
}

/// What is said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Positive.
    True,
    /// Negative.
    False,
    /// Neither can be said: a person should look.
    Unknown,
}

/// How a probability becomes a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decide {
    /// Above this probability the verdict is "true".
    pub threshold: f64,
    /// When the verdict is "unknown".
    pub conformal: Conformal,
}

impl Decide {
    /// What is said at a probability. Above the operating point it is "true", unless "negative" is possible, too; below,
    /// it is "false" where that alone is possible.
    #[must_use]
    pub fn verdict(&self, probability: f64) -> Verdict {
        let set = self.conformal.set(probability);
        match (probability > self.threshold, set.negative, set.positive) {
            (true, true, true) => Verdict::Unknown,
            (true, ..) => Verdict::True,
            (false, true, false) => Verdict::False,
            (false, ..) => Verdict::Unknown,
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Verdict::True => serializer.serialize_bool(true),
            Verdict::False => serializer.serialize_bool(false),
            Verdict::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

impl Model {
    /// Encodes rows.
    ///
    /// # Errors
    /// A column is missing or of the wrong kind; the error names it.
    pub fn encode(&self, table: &Table) -> Result<Matrix, ModelError> {
        let Some(history) = &self.history else { return self.ensemble.encoder.encode(table) };
        let mut table = table.clone();
        table.columns.extend(history.columns(&table)?);
        self.ensemble.encoder.encode(&table)
    }

    /// The probability of the positive class of each encoded row, in order.
    #[must_use]
    pub fn probabilities(&self, matrix: &Matrix, threads: usize) -> Vec<f64> {
        let blended = self.ensemble.blended(&self.ensemble.scores_of(matrix, threads));
        blended.into_iter().map(|score| self.calibration.probability(score)).collect()
    }

    /// The probability of the positive class of one encoded row.
    #[must_use]
    pub fn probability(&self, row: &[f32]) -> f64 {
        let scores = self.ensemble.members.iter().map(|member| member.score(row));
        self.calibration.probability(self.ensemble.blend(scores))
    }

    /// The same with what each column changed in the score of the members that can say: as many numbers a row as the matrix
    /// has columns.
    #[must_use]
    pub fn explained(&self, matrix: &Matrix) -> (Vec<f64>, Vec<f64>) {
        let (scores, effects) = self.ensemble.explained(matrix);
        let blended = self.ensemble.blended(&scores);
        (blended.into_iter().map(|score| self.calibration.probability(score)).collect(), effects)
    }

    /// What is said at a probability.
    #[must_use]
    pub fn verdict(&self, probability: f64) -> Verdict {
        Decide { threshold: self.threshold, conformal: self.conformal }.verdict(probability)
    }

    /// Share of rows whose verdict is "unknown".
    #[must_use]
    pub fn unknown_share(&self, probabilities: &[f64]) -> f64 {
        let unknown = probabilities.iter().filter(|p| self.verdict(**p) == Verdict::Unknown).count();
        unknown as f64 / probabilities.len().max(1) as f64
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// It is larger than a file may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(self).map_err(|error| error.to_string())?);
        if bytes.len() > BYTES_MAX { Err(format!("more than {BYTES_MAX} bytes")) } else { Ok(bytes) }
    }

    /// From the bytes of a file, checked.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("more than {BYTES_MAX} bytes"));
        }
        let fields = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a model of this version does")?;
        let (model, rest): (Model, _) = postcard::take_from_bytes(fields).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes are left over", rest.len()));
        }
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<(), String> {
        if !self.threshold.is_finite() {
            return Err("a threshold that is not a number".to_owned());
        }
        self.ensemble.check()?;
        self.calibration.check()?;
        self.conformal.check()
    }
}
