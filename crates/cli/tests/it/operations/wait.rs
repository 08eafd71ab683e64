//! Waiting for a level, with a bound: never for a fixed time.

use std::time::{Duration, Instant};

/// Generous: a busy machine is no failure.
const AT_MOST: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// Waits until `reached`; fails with `what` when it never is.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !reached() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(STEP);
    }
}

/// The same for a level that has to be asked for.
pub(crate) async fn until_async(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !reached().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(STEP).await;
    }
}
