//! What happens when every place is taken.

use tokio::time::sleep;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_takes_the_place_of_the_longest_idle_one() {
    let fixture = Fixture::start(options(2), hello());
    let second = Duration::from_secs(1);
    let mut half_open = fixture.connect();
    sleep(second).await;
    let mut kept_alive = fixture.connect();
    ask(&mut kept_alive).await.unwrap();
    sleep(second).await;
    let mut third = fixture.connect();
    ask(&mut third).await.unwrap();
    assert_eq!(closed_after(&mut half_open).await, 0);
    sleep(second).await;
    ask(&mut kept_alive).await.unwrap();
    ask(&mut fixture.connect()).await.unwrap();
    assert_eq!(closed_after(&mut third).await, 0, "the other one asked later");
    ask(&mut kept_alive).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_sends_nothing_keeps_nobody_out() {
    let fixture = Fixture::start(options(8), hello());
    let flood: Vec<_> = (0..1_000).map(|_| fixture.connect()).collect();
    let start = Instant::now();
    ask(&mut fixture.connect()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(flood);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_request_is_being_answered_keeps_its_place() {
    let (begun, finish, slow) = gated();
    let fixture = Fixture::start(options(1), slow);
    let mut busy = fixture.connect();
    let asking = tokio::spawn(async move { ask(&mut busy).await });
    begun.notified().await;
    let mut next = fixture.connect();
    let waiting = tokio::spawn(async move { ask(&mut next).await });
    sleep(Duration::from_secs(5)).await;
    finish.notify_one();
    asking.await.unwrap().unwrap();
    begun.notified().await;
    finish.notify_one();
    waiting.await.unwrap().unwrap();
}
