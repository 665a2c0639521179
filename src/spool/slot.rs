//! The answer to one append: for a thread that waits, or for a task.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Waker},
};

use crate::{lock, log::AppendError};

type Answer = Result<Range<u64>, AppendError>;

#[derive(Debug, Default)]
struct State {
    /// Stays true when the answer has been taken.
    answered: bool,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// Where the writer puts the answer. Dropped without one, it says [`AppendError::Closed`].
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Answerer(Arc<Slot>);

impl Answerer {
    pub(crate) fn answer(self, answer: Answer) {
        self.0.set(answer);
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        // Also when the writer's thread dies: nobody waits for ever. Does nothing after `answer`.
        self.0.set(Err(AppendError::Closed));
    }
}

impl Slot {
    fn set(&self, answer: Answer) {
        let mut state = lock(&self.state);
        if state.answered {
            return;
        }
        state.answered = true;
        state.answer = Some(answer);
        let waker = state.waker.take();
        drop(state);
        self.answered.notify_all();
        // Outside the lock: an executor may poll right away.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// An append on its way to the disk. Wait for it with [`Appended::wait`] or `.await`; dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "only the answer says whether the rows are durable"]
pub struct Appended(Arc<Slot>);

impl Appended {
    pub(crate) fn new() -> (Answerer, Appended) {
        let slot = Arc::new(Slot::default());
        (Answerer(Arc::clone(&slot)), Appended(slot))
    }

    /// Waits until the rows are durable, and gives their numbers.
    ///
    /// # Errors
    ///
    /// When they are not and will not be.
    pub fn wait(self) -> Result<Range<u64>, AppendError> {
        let mut state = lock(&self.0.state);
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state = self.0.answered.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl Future for Appended {
    type Output = Result<Range<u64>, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.state);
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
