//! Numbers that look random and are the same on every run, for tests, benches and their generators.
//!
//! Nothing of the product draws from it: no result depends on chance.

/// A stream of numbers, by its seed (SplitMix64: Steele, Lea, Flood 2014).
///
/// ```
/// use cf_types::random::Random;
/// let mut random = Random(7);
/// let dice: Vec<u64> = (0..5).map(|_| random.number(6) + 1).collect();
/// let mut again = Random(7);
/// assert_eq!(dice, (0..5).map(|_| again.number(6) + 1).collect::<Vec<_>>());
/// ```
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn number(&mut self, n: u64) -> u64 {
        self.draw().checked_rem(n).unwrap_or(0)
    }

    /// An index below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        usize::try_from(self.number(n)).unwrap_or(0)
    }

    /// A number from `low` to `high`, both of them included; `low` if it is the larger.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        let numbers = high.saturating_sub(low).saturating_add(1);
        low.saturating_add(i64::try_from(self.number(u64::try_from(numbers).unwrap_or(0))).unwrap_or(0))
    }

    /// One of a list.
    ///
    /// # Panics
    ///
    /// If the list is empty.
    pub fn one_of<T: Clone>(&mut self, list: &[T]) -> T {
        let at = self.below(list.len());
        list.get(at).cloned().expect("a list of something")
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}
