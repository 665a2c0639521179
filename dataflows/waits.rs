//! What waits for event time: the next cell at which something changes without a further event.
//!
//! Each operator that acts when event time passes tells the first cell at which it would, as a collection of one row per
//! worker; the sink keeps the least of all. Whoever cuts epochs then knows whether, while all sources are silent, it is
//! worth an epoch to say that time has passed ([`crate::Batch::passed_ms`]). Memory: one cell per operator and worker.

use cf_types::Cell;

/// What one operator told last.
#[derive(Default)]
pub(crate) struct Waits(Option<Cell>);

impl Waits {
    /// How the row changes, if this is the first cell at which something happens from now on.
    pub(crate) fn until(&mut self, next: Option<Cell>) -> impl Iterator<Item = (Cell, isize)> + use<> {
        let before = std::mem::replace(&mut self.0, next);
        let (went, came) = if before == next { (None, None) } else { (before, next) };
        went.map(|cell| (cell, -1)).into_iter().chain(came.map(|cell| (cell, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_told() {
        let mut waits = Waits::default();
        let mut told = |next| waits.until(next).collect::<Vec<_>>();
        assert_eq!(told(None), []);
        assert_eq!(told(Some(5)), [(5, 1)]);
        assert_eq!(told(Some(5)), []);
        assert_eq!(told(Some(3)), [(5, -1), (3, 1)]);
        assert_eq!(told(None), [(3, -1)]);
    }
}
