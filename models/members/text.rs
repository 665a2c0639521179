//! Logistic regression on hashed character n-grams of a URL: host and rest apart.

use serde::{Deserialize, Serialize};

use super::sigmoid;
use crate::{
    features::url::host_and_rest,
    random::{Random, hash},
    table::Texts,
};

/// Buckets of n-grams.
const BUCKETS: usize = 1 << 17;
/// Times that every row is seen.
const ROUNDS: usize = 6;
/// Length of a step before it is divided by what was walked (AdaGrad: Duchi, Hazan, Singer 2011).
const RATE: f32 = 0.3;
/// Share of a weight that is lost each time it is used.
const DECAY: f32 = 2e-4;

/// A weight for each bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grams {
    bias: f32,
    weights: Vec<f32>,
}

impl Grams {
    /// Trains on the given rows of a column.
    #[must_use]
    pub fn train(texts: &Texts, positive: &[bool], rows: &[usize], seed: u64) -> Grams {
        let mut grams = Grams { bias: 0.0, weights: vec![0.0; BUCKETS] };
        let mut walked = vec![1e-2_f32; BUCKETS];
        let mut random = Random::new(seed, 0x6A45);
        let mut order = rows.to_vec();
        for _ in 0..ROUNDS {
            random.shuffle(&mut order);
            for &row in &order {
                let Some(text) = texts.get(row) else { continue };
                let buckets = buckets(text);
                let size = norm(&buckets);
                let error = grams.answer(&buckets) as f32 - f32::from(u8::from(positive[row]));
                grams.bias -= 0.01 * error;
                for &bucket in &buckets {
                    let weight = &mut grams.weights[bucket];
                    let gradient = error * size + DECAY * *weight;
                    walked[bucket] += gradient * gradient;
                    *weight -= RATE * gradient / walked[bucket].sqrt();
                }
            }
        }
        grams
    }

    /// Probability of the positive class.
    #[must_use]
    pub fn score(&self, text: &str) -> f64 {
        self.answer(&buckets(text))
    }

    fn answer(&self, buckets: &[usize]) -> f64 {
        let sum: f32 = buckets.iter().map(|&bucket| self.weights[bucket]).sum();
        sigmoid(f64::from(self.bias + sum * norm(buckets)))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let finite = self.bias.is_finite() && self.weights.iter().all(|weight| weight.is_finite());
        if finite && self.weights.len() == BUCKETS {
            Ok(())
        } else {
            Err("weights of n-grams that do not fit".to_owned())
        }
    }
}

/// So that a long text does not shout.
fn norm(buckets: &[usize]) -> f32 {
    1.0 / (buckets.len().max(1) as f32).sqrt()
}

/// The buckets of a text's n-grams, each once.
fn buckets(text: &str) -> Vec<usize> {
    let lower = text.trim().to_ascii_lowercase();
    let (host, rest) = host_and_rest(&lower);
    let mut buckets = Vec::new();
    grams(b'h', host.trim_start_matches("www."), 3..=5, &mut buckets);
    grams(b'p', rest, 3..=4, &mut buckets);
    words(b'H', host, &mut buckets);
    words(b'P', rest, &mut buckets);
    buckets.sort_unstable();
    buckets.dedup();
    buckets
}

fn grams(part: u8, text: &str, sizes: std::ops::RangeInclusive<usize>, into: &mut Vec<usize>) {
    // The part stands before each gram, where the byte before it is: one text for all of them.
    let mut bytes = Vec::with_capacity(text.len() + 3);
    bytes.extend([part, b'^']);
    bytes.extend(text.as_bytes());
    bytes.push(b'$');
    for size in sizes {
        for start in 1..(bytes.len() + 1).saturating_sub(size) {
            let before = std::mem::replace(&mut bytes[start - 1], part);
            into.push(bucket(&bytes[start - 1..start + size]));
            bytes[start - 1] = before;
        }
    }
}

fn words(part: u8, text: &str, into: &mut Vec<usize>) {
    let mut bytes = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        bytes.clear();
        bytes.push(part);
        bytes.extend(word.as_bytes());
        into.push(bucket(&bytes));
    }
}

fn bucket(gram: &[u8]) -> usize {
    (hash(gram) % BUCKETS as u64) as usize
}
