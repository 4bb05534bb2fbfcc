//! Who leads, as the rest of the process sees it. What is told is checked against the monotonic clock at the moment of the
//! question, so that a process that was stopped for a while never believes in a term that is over.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

/// What this process may do under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaderState {
    /// Another process holds the lease, or nobody yet.
    Standby,
    /// This process holds it.
    Leading,
    /// It was held, and could not be renewed in time because the API server cannot be reached: work goes on, nothing is
    /// written there.
    Detached,
}

impl LeaderState {
    /// The state as it stands in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Leading => "leading",
            Self::Detached => "detached",
        }
    }
}

/// What the lease task knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) state: LeaderState,
    /// While leading: the end of what the last acknowledged renewal covers. `None`: for ever.
    pub(super) until: Option<Instant>,
}

impl Term {
    /// Leading ends with the term, whether or not the task has noticed.
    fn state(self, now: Instant) -> LeaderState {
        match self.state {
            LeaderState::Leading if self.is_over(now) => LeaderState::Detached,
            state => state,
        }
    }

    /// Work may begin while the term lasts, or when it is known to have ended for want of an API server. A term that is
    /// over for an unknown reason (the process was stopped) gives no right: another process may lead by now.
    fn permits(self, now: Instant) -> bool {
        match self.state {
            LeaderState::Standby => false,
            LeaderState::Leading => !self.is_over(now),
            LeaderState::Detached => true,
        }
    }

    fn is_over(self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// Tells whether this process leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    term: Arc<watch::Sender<Term>>,
    states: Arc<watch::Sender<LeaderState>>,
}

impl Leadership {
    /// Without leader election: the only process leads for ever.
    pub fn always() -> Self {
        Self::new(Term {
            state: LeaderState::Leading,
            until: None,
        })
    }

    pub(super) fn standby() -> Self {
        Self::new(Term {
            state: LeaderState::Standby,
            until: None,
        })
    }

    fn new(term: Term) -> Self {
        Self {
            states: Arc::new(watch::Sender::new(term.state)),
            term: Arc::new(watch::Sender::new(term)),
        }
    }

    /// The state now. Never says `Leading` past the renew deadline, which counts from when the last acknowledged renewal
    /// was sent.
    pub fn state(&self) -> LeaderState {
        self.term.borrow().state(Instant::now())
    }

    /// Whether this process leads now, and so may write.
    pub fn is_leading(&self) -> bool {
        self.state() == LeaderState::Leading
    }

    /// Waits until this process may work under the lease: it leads, or is detached from an API server that cannot be
    /// reached.
    pub async fn permits(&self) {
        let mut term = self.term.subscribe();
        // The sender lives as long as `self`.
        let _ = term.wait_for(|term| term.permits(Instant::now())).await;
    }

    /// Every change of the state. It may lag behind [`Leadership::state`], which also looks at the clock.
    pub fn subscribe(&self) -> watch::Receiver<LeaderState> {
        self.states.subscribe()
    }

    /// Plays the lease task in tests of others.
    #[cfg(test)]
    pub(crate) fn become_state(&self, state: LeaderState) {
        self.set(Term { state, until: None });
    }

    /// Takes over what the lease task found; true if the state changed.
    pub(super) fn set(&self, term: Term) -> bool {
        self.term.send_replace(term);
        self.states.send_if_modified(|state| {
            let changed = *state != term.state;
            *state = term.state;
            changed
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn leading(until: Instant) -> Term {
        Term {
            state: LeaderState::Leading,
            until: Some(until),
        }
    }

    #[test]
    fn nobody_leads_past_the_end_of_the_term() {
        let leadership = Leadership::standby();
        let now = Instant::now();
        assert!(leadership.set(leading(now + Duration::from_mins(1))));
        assert_eq!(leadership.state(), LeaderState::Leading);
        assert!(leadership.permits().now_or_never().is_some());
        assert!(!leadership.set(leading(now)), "the task has not noticed yet");
        assert_eq!(leadership.state(), LeaderState::Detached);
        assert!(leadership.permits().now_or_never().is_none(), "perhaps another leads");
        let detached = Term {
            state: LeaderState::Detached,
            until: None,
        };
        assert!(leadership.set(detached));
        assert!(leadership.permits().now_or_never().is_some(), "nobody can be reached");
    }

    #[test]
    fn without_election_it_leads_for_ever() {
        let leadership = Leadership::always();
        assert!(leadership.is_leading());
        assert!(leadership.permits().now_or_never().is_some());
        assert!(!leadership.subscribe().has_changed().unwrap());
    }
}
