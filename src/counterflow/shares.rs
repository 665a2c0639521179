//! What each class of sources may take of an epoch: of its bytes as of its records, high 16 parts of 20, normal 3, low 1, and
//! then what others leave. So long records of one class take nothing from the others' parts.

use cf_kafka::Class;

/// Records of a twentieth part, when classes take turns.
const PART: usize = 32;
/// Records of one round, in which each class takes its parts.
pub(crate) const ROUND: usize = 20 * PART;

/// Records that a class takes in one round.
pub(crate) const fn records(class: Class) -> usize {
    class.parts() * PART
}

/// What the classes may still take of one epoch, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    left: [(Class, usize); 3],
    /// All have what they wanted of their own parts: the rest is for whoever comes.
    is_free: bool,
}

impl Shares {
    /// Of an epoch of so many bytes.
    pub(crate) fn of(bytes: usize) -> Shares {
        Shares { left: Class::ALL.map(|class| (class, bytes * class.parts() / 20)), is_free: false }
    }

    /// What a class may take now, when the epoch has so much left.
    pub(crate) fn budget(&self, class: Class, bytes_left: usize) -> usize {
        let own = self.left.iter().find(|(of, _)| *of == class).map_or(0, |(_, left)| *left);
        if self.is_free { bytes_left } else { own.min(bytes_left) }
    }

    /// A class has taken so much.
    pub(crate) fn used(&mut self, class: Class, bytes: usize) {
        for (_, left) in self.left.iter_mut().filter(|(of, _)| *of == class) {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Nobody took anything: from now on parts do not count. Says whether that is new, so that it is worth to ask again.
    pub(crate) fn free(&mut self) -> bool {
        !std::mem::replace(&mut self.is_free, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets classes with records of these lengths, of which there is no end, take turns; gives the bytes that each has.
    fn play(lengths: [usize; 3]) -> [usize; 3] {
        let mut bytes_left = 1_000_000;
        let (mut shares, mut taken) = (Shares::of(bytes_left), [0; 3]);
        loop {
            let mut any = false;
            for ((class, length), taken) in Class::ALL.into_iter().zip(lengths).zip(&mut taken) {
                let mut budget = shares.budget(class, bytes_left);
                for _ in 0..records(class) {
                    if length == 0 || budget == 0 {
                        break;
                    }
                    let used = length.min(budget);
                    budget -= used;
                    bytes_left -= used;
                    *taken += used;
                    shares.used(class, used);
                    any = true;
                }
            }
            if (!any && !shares.free()) || bytes_left == 0 {
                return taken;
            }
        }
    }

    #[test]
    fn each_class_has_its_part_of_the_bytes_however_long_the_others_records_are() {
        for lengths in [[9_000, 10, 10], [10, 9_000, 10], [10, 10, 9_000], [9_000, 9_000, 9_000]] {
            let taken = play(lengths);
            assert!(taken[2] >= 50_000 && taken[1] >= taken[2] && taken[0] > taken[1], "{lengths:?}: {taken:?}");
            assert_eq!(taken.iter().sum::<usize>(), 1_000_000);
        }
    }

    #[test]
    fn what_others_leave_is_for_whoever_comes() {
        assert_eq!(play([0, 0, 500]), [0, 0, 1_000_000]);
        assert_eq!(play([500, 0, 0]), [1_000_000, 0, 0]);
    }
}
