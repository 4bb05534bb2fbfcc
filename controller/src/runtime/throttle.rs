//! The client-side limit on requests to the API server that `--kube-api-qps` and `--kube-api-burst` ask for. Off unless asked
//! for: the API server's own fairness governs. Requests wait for their turn, none fails.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use tokio::time::{Instant, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

/// Leases do not wait: a renewal that came late would end the work that makes the other requests.
const LEASES: &str = "/apis/coordination.k8s.io/";

/// A rate that all clones share.
#[derive(Debug, Clone)]
pub struct Throttle {
    /// Time that one request stands for.
    cost: Duration,
    /// How far ahead of its even pace the sum of all requests may be.
    slack: Duration,
    /// When the requests made so far would be paid for (generic cell rate algorithm).
    paid: Arc<Mutex<Option<Instant>>>,
}

impl Throttle {
    /// At most `rate` requests per second in the long run, `burst` at once after a pause; `None` for a rate that is not
    /// positive.
    pub fn new(rate: f64, burst: u32) -> Option<Self> {
        let cost = Duration::try_from_secs_f64(rate.recip()).ok().filter(|_| rate > 0.0)?;
        Some(Self {
            cost,
            slack: cost.saturating_mul(burst.saturating_sub(1)),
            paid: Arc::default(),
        })
    }

    /// Takes a turn, and says when it comes.
    fn turn(&self, now: Instant) -> Instant {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(from + self.cost);
        from.checked_sub(self.slack).map_or(now, |turn| turn.max(now))
    }
}

impl<S> Layer<S> for Throttle {
    type Service = Throttled<S>;

    fn layer(&self, inner: S) -> Throttled<S> {
        Throttled {
            throttle: self.clone(),
            inner,
        }
    }
}

/// A service whose requests take turns.
#[derive(Debug, Clone)]
pub struct Throttled<S> {
    throttle: Throttle,
    inner: S,
}

impl<S, B> Service<Request<B>> for Throttled<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_lease = request.uri().path().starts_with(LEASES);
        let turn = (!is_lease).then(|| self.throttle.turn(Instant::now()));
        // Nothing is sent before this future is polled on.
        let answer = self.inner.call(request);
        Box::pin(async move {
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_requests_take_turns() {
        let throttle = Throttle::new(10.0, 3).unwrap();
        let start = Instant::now();
        let waits: Vec<_> = (0..5).map(|_| (throttle.turn(start) - start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        let later = start + Duration::from_mins(1);
        let waits: Vec<_> = (0..4).map(|_| (throttle.turn(later) - later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100], "a pause gives one burst, not more");
    }

    #[test]
    fn no_positive_rate_is_no_limit() {
        assert!(Throttle::new(-1.0, 300).is_none());
        assert!(Throttle::new(0.0, 300).is_none());
    }

    #[derive(Clone)]
    struct Echo;

    impl Service<Request<()>> for Echo {
        type Response = ();
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<(), Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leases_do_not_wait() {
        let mut service = Throttle::new(1.0, 1).unwrap().layer(Echo);
        let start = Instant::now();
        let get = |path: &str| Request::get(path).body(()).unwrap();
        service.call(get("/api/v1/pods")).await.unwrap();
        service.call(get("/apis/coordination.k8s.io/v1/leases")).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        service.call(get("/api/v1/pods")).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
