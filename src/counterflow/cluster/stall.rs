//! Whether the oldest epoch in flight is stuck: a process that lives and does not work says so to nobody.

use std::time::{Duration, Instant};

/// How long the next output has been waited for.
#[derive(Debug)]
pub(super) struct Stall {
    longest: Duration,
    /// `None` before the state is rebuilt: an epoch that recalls hours of detections takes its time.
    waiting: Option<Option<Instant>>,
}

impl Stall {
    pub(super) fn new(longest: Duration) -> Stall {
        Stall { longest, waiting: None }
    }

    /// From here on epochs are small.
    pub(super) fn go_live(&mut self) {
        self.waiting = Some(None);
    }

    /// An output came, or something else than the graph held it up.
    pub(super) fn reset(&mut self) {
        self.waiting = self.waiting.map(|_| None);
    }

    /// It was waited for, and did not come; says whether that is too long.
    pub(super) fn waited(&mut self, now: Instant) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        now.saturating_duration_since(*waiting.get_or_insert(now)) >= self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_is_counted_from_the_first_wait_after_the_last_output() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::new(Duration::from_secs(10));
        // While the state is rebuilt nothing is too long.
        assert!(!stall.waited(after(0)) && !stall.waited(after(99)));
        stall.go_live();
        assert_eq!([100, 105, 109, 110].map(|at| stall.waited(after(at))), [false, false, false, true]);
        stall.reset();
        assert_eq!([110, 119, 120].map(|at| stall.waited(after(at))), [false, false, true]);
    }
}
