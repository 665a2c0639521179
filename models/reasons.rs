//! Why a row scores as it does: what each source column changed, the largest first.

use crate::features::Encoder;

/// The names that effects are told by: columns of one name are one reason.
#[derive(Clone, Debug)]
pub struct Names {
    /// Each once, in order.
    names: Vec<String>,
    /// The name of each column of a matrix, as a place.
    places: Vec<usize>,
}

impl Names {
    /// Of an encoder's columns.
    #[must_use]
    pub fn of(encoder: &Encoder) -> Names {
        let by_column = encoder.names();
        let mut names = by_column.clone();
        names.sort();
        names.dedup();
        let places = by_column.iter().map(|name| names.binary_search(name).unwrap_or_default()).collect();
        Names { names, places }
    }

    /// At most `most` of the effects of one row, the largest first; those of one size by name.
    #[must_use]
    pub fn largest(&self, effects: &[f64], most: usize) -> Vec<(&str, f64)> {
        let mut named = vec![0.0; self.names.len()];
        for (&place, effect) in self.places.iter().zip(effects) {
            named[place] += effect;
        }
        let mut found: Vec<(usize, f64)> = named.into_iter().enumerate().filter(|(_, effect)| *effect != 0.0).collect();
        let larger = |a: &(usize, f64), b: &(usize, f64)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
        if most < found.len() {
            found.select_nth_unstable_by(most, larger);
            found.truncate(most);
        }
        found.sort_unstable_by(larger);
        found.into_iter().map(|(place, effect)| (self.names[place].as_str(), effect)).collect()
    }
}
