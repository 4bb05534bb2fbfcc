//! Keeps the process honest: every watch, server and sweep is a named task, and when one ends or panics, the process ends
//! non-zero with its name and reason instead of running on half dead.
//!
//! A signal stops the tasks in order of their `linger`: each gets its own token, cancelled that long after the signal,
//! and then its own grace before it is aborted.

use std::{any::Any, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::runtime::serve::BoxError;

/// When a task is told to stop and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPlan {
    /// Goes on for this long after the signal (the issuer documents: 15 s).
    pub linger: Duration,
    /// From its token's cancellation to the abort.
    pub grace: Duration,
}

impl Default for StopPlan {
    /// Stops at once, within 10 s.
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            grace: Duration::from_secs(10),
        }
    }
}

/// Why the process ends although nobody asked for it.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A task returned without an error before the stop.
    #[error("task {task} ended")]
    Ended {
        /// Its name.
        task: String,
    },
    /// A task returned an error.
    #[error("task {task} failed: {}", chain(.source.as_ref()))]
    Failed {
        /// Its name.
        task: String,
        /// What it returned.
        source: BoxError,
    },
    /// A task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: String,
        /// The panic's text.
        message: String,
    },
}

/// `error` with all its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors already contain the text of their source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The named tasks of one process.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<(String, Result<(), SuperviseError>)>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// No tasks yet.
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Cancelled as soon as the process is to stop, for whatever reason. Cancelling it stops the process as a signal does.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `task` under `name`. The token it gets follows `plan`; until that is cancelled, the task must not end.
    pub fn spawn<F, T, E>(&mut self, name: impl Into<String>, plan: StopPlan, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let token = CancellationToken::new();
        // A set of one: dropping it aborts the task, so that it never outlives its guard.
        let mut work = JoinSet::new();
        work.spawn(task(token.clone()));
        let (name, stop) = (name.into(), self.stop.clone());
        self.tasks.spawn(async move {
            let ended = guard(&name, plan, work, &token, &stop).await;
            (name, ended)
        });
    }

    /// Runs until a task ends, the stop token is cancelled or a signal arrives, then stops every task by its plan. A
    /// second signal aborts what is left.
    ///
    /// `Ok` after a signal or [`Supervisor::stopping`]; the error names the first task that ended on its own.
    pub async fn run(mut self, mut signals: mpsc::Receiver<&'static str>) -> Result<(), SuperviseError> {
        let outcome = tokio::select! {
            biased;
            Some(signal) = signals.recv() => {
                tracing::info!(signal, "stopping");
                Ok(())
            }
            () = self.stop.cancelled() => Ok(()),
            Some((task, result)) = join(&mut self.tasks) => Err(result.err().unwrap_or(SuperviseError::Ended { task })),
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "a task ended, stopping the process");
        }
        self.stop.cancel();
        loop {
            tokio::select! {
                next = join(&mut self.tasks) => match next {
                    None => return outcome,
                    Some((_, Ok(()))) => {}
                    Some((task, Err(error))) => tracing::error!(task, %error, "a task failed while stopping"),
                },
                Some(signal) = signals.recv() => {
                    tracing::info!(signal, "second signal, stopping at once");
                    return outcome;
                }
            }
        }
    }
}

async fn join<T: 'static>(tasks: &mut JoinSet<T>) -> Option<T> {
    loop {
        match tasks.join_next().await {
            None => return None,
            Some(Ok(output)) => return Some(output),
            // A guard is never aborted and does not panic; were it so, the others still count.
            Some(Err(_)) => {}
        }
    }
}

async fn guard<E: Into<BoxError> + Send + 'static>(
    name: &str,
    plan: StopPlan,
    mut work: JoinSet<Result<(), E>>,
    token: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), SuperviseError> {
    let lingered = async {
        stop.cancelled().await;
        sleep(plan.linger).await;
    };
    tokio::select! {
        ended = outcome(name, &mut work) => return ended,
        () = lingered => token.cancel(),
    }
    tokio::select! {
        ended = outcome(name, &mut work) => ended,
        () = sleep(plan.grace) => {
            tracing::error!(task = name, grace = ?plan.grace, "aborting a task that did not stop");
            Ok(())
        }
    }
}

/// How `work`, the only task of its set, ended.
async fn outcome<E>(name: &str, work: &mut JoinSet<Result<(), E>>) -> Result<(), SuperviseError>
where
    E: Into<BoxError> + Send + 'static,
{
    match work.join_next().await {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(source))) => Err(SuperviseError::Failed {
            task: name.to_owned(),
            source: source.into(),
        }),
        Some(Err(error)) => match error.try_into_panic() {
            Ok(payload) => Err(SuperviseError::Panicked {
                task: name.to_owned(),
                message: panic_text(payload.as_ref()),
            }),
            Err(_) => Err(SuperviseError::Ended { task: name.to_owned() }),
        },
    }
}

/// The text of a panic's payload.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// SIGTERM and SIGINT by name, as they arrive. Needs a running runtime; fails where handlers cannot be installed.
pub fn signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use tokio::time::Instant;

    use super::*;

    fn quiet() -> mpsc::Receiver<&'static str> {
        let (sender, receiver) = mpsc::channel(1);
        // Kept alive: a closed channel would mean that no signal can come.
        std::mem::forget(sender);
        receiver
    }

    async fn until_stopped(stop: CancellationToken) -> Result<(), io::Error> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_ends_the_process_with_its_name() {
        let mut supervisor = Supervisor::new();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        supervisor.spawn("artifacts", StopPlan::default(), |stop| async move {
            stop.cancelled().await;
            seen.store(true, Ordering::Relaxed);
            Ok::<_, io::Error>(())
        });
        supervisor.spawn("watch", StopPlan::default(), |_| async { Ok::<_, io::Error>(()) });
        let error = supervisor.run(quiet()).await.unwrap_err();
        assert_eq!(error.to_string(), "task watch ended");
        assert!(stopped.load(Ordering::Relaxed), "the others are stopped properly");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_ends_the_process_with_the_reason() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("sweep", StopPlan::default(), |_| async {
            Err(io::Error::other("disk is gone"))
        });
        let error = supervisor.run(quiet()).await.unwrap_err();
        assert_eq!(error.to_string(), "task sweep failed: disk is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_ends_the_process_with_the_message() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("queue", StopPlan::default(), |_| async {
            assert_eq!(1 + 1, 3, "arithmetic is broken");
            Ok::<_, io::Error>(())
        });
        let error = supervisor.run(quiet()).await.unwrap_err();
        assert!(matches!(&error, SuperviseError::Panicked { task, .. } if task == "queue"));
        assert!(error.to_string().contains("arithmetic is broken"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_without_an_error() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("watch", StopPlan::default(), until_stopped);
        let (sender, signals) = mpsc::channel(1);
        sender.send("SIGTERM").await.unwrap();
        supervisor.run(signals).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lingering_task_goes_on_after_the_signal() {
        let mut supervisor = Supervisor::new();
        let start = Instant::now();
        let linger = Duration::from_secs(15);
        supervisor.spawn("queue", StopPlan::default(), move |stop| async move {
            stop.cancelled().await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            Ok::<_, io::Error>(())
        });
        let plan = StopPlan {
            linger,
            ..StopPlan::default()
        };
        supervisor.spawn("documents", plan, until_stopped);
        supervisor.stopping().cancel();
        supervisor.run(quiet()).await.unwrap();
        assert_eq!(start.elapsed(), linger);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted_after_its_grace() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("stuck", StopPlan::default(), |_| {
            std::future::pending::<Result<(), io::Error>>()
        });
        supervisor.stopping().cancel();
        let start = Instant::now();
        supervisor.run(quiet()).await.unwrap();
        assert_eq!(start.elapsed(), StopPlan::default().grace);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait_for_the_grace() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("stuck", StopPlan::default(), |_| {
            std::future::pending::<Result<(), io::Error>>()
        });
        let (sender, signals) = mpsc::channel(2);
        sender.send("SIGINT").await.unwrap();
        sender.send("SIGINT").await.unwrap();
        let start = Instant::now();
        supervisor.run(signals).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Repeats(#[source] io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Plain(#[source] io::Error);
        assert_eq!(chain(&Repeats(io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&Plain(io::Error::other("inner"))), "outer: inner");
    }
}
