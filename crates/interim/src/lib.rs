//! Interim responses (RFC 9110 §15.2) of an HTTP/1.1 request: [`Interim`] is for whoever answers it, [`Outlet`] for
//! whoever writes to its connection. hyper's server sends none but `100 Continue`.
//!
//! *Bounds.* At most [`WAITING_MAX`] responses wait; a further one takes the place of the last, which it supersedes.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Responses of a request that wait to be sent, at most.
pub const WAITING_MAX: usize = 2;

#[derive(Debug, Default)]
struct State {
    waiting: [Option<Bytes>; WAITING_MAX],
    /// No more is taken: the final response is made.
    answered: bool,
    /// Whoever writes, when it found nothing to be sent.
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says interim responses; found among the extensions of a request whose connection can send them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interim(Arc<Shared>);

/// What was said with the [`Interim`]s of one request.
#[derive(Debug, Clone)]
pub struct Outlet(Arc<Shared>);

/// Both ends for one request.
pub fn channel() -> (Interim, Outlet) {
    let shared: Arc<Shared> = Arc::default();
    (Interim(shared.clone()), Outlet(shared))
}

impl Interim {
    /// Sends a response as soon as the connection can take it, without waiting for that. What is said before the final
    /// response is made comes before it; what is said later, or is not `1xx`, or 101, is not sent.
    pub fn send(&self, status: StatusCode, reason: &str, headers: &HeaderMap) {
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let bytes = encode(status, reason, headers);
        let mut state = self.0.lock();
        if state.answered {
            return;
        }
        let free = state.waiting.iter().position(Option::is_none).unwrap_or(WAITING_MAX - 1);
        state.waiting[free] = Some(bytes);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl Outlet {
    /// The bytes of the response that is to be sent next. When there is none, the task of `context` is woken once there
    /// is; without a context nobody is.
    pub fn next(&self, context: Option<&Context<'_>>) -> Option<Bytes> {
        let mut state = self.0.lock();
        let [first, second] = &mut state.waiting;
        let next = std::mem::replace(first, second.take());
        if next.is_none()
            && let Some(context) = context
        {
            state.writer = Some(context.waker().clone());
        }
        next
    }

    /// Takes no more: the final response is made. What waits may still be sent before it.
    pub fn answered(&self) {
        self.0.lock().answered = true;
    }
}

/// The response as it goes over the wire (RFC 9112 §4). Header values have no line ends.
fn encode(status: StatusCode, reason: &str, headers: &HeaderMap) -> Bytes {
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn say(interim: &Interim, status: u16) {
        interim.send(StatusCode::from_u16(status).unwrap(), "R", &HeaderMap::new());
    }

    fn line(status: u16) -> Option<Bytes> {
        Some(format!("HTTP/1.1 {status} R\r\n\r\n").into())
    }

    #[test]
    fn the_first_is_kept_and_the_newest() {
        let (interim, outlet) = channel();
        for status in [102, 103, 104, 105] {
            say(&interim, status);
        }
        assert_eq!((outlet.next(None), outlet.next(None), outlet.next(None)), (line(102), line(105), None));
    }

    #[test]
    fn nothing_after_the_answer_and_nothing_final() {
        let (interim, outlet) = channel();
        for status in [200, 101, 99] {
            StatusCode::from_u16(status).map(|status| interim.send(status, "R", &HeaderMap::new())).ok();
        }
        assert_eq!(outlet.next(None), None);
        say(&interim, 104);
        outlet.answered();
        say(&interim, 105);
        assert_eq!((outlet.next(None), outlet.next(None)), (line(104), None), "what was said before is kept");
    }

    #[test]
    fn headers_are_written() {
        let (interim, outlet) = channel();
        let mut headers = HeaderMap::new();
        headers.insert("upload-offset", HeaderValue::from_static("7"));
        interim.send(StatusCode::EARLY_HINTS, "Early Hints", &headers);
        assert_eq!(outlet.next(None).unwrap(), "HTTP/1.1 103 Early Hints\r\nupload-offset: 7\r\n\r\n");
    }

    #[test]
    fn the_writer_is_woken() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let (interim, outlet) = channel();
        assert_eq!(outlet.next(Some(&Context::from_waker(&waker))), None);
        say(&interim, 104);
        say(&interim, 105);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "once for each time it found nothing");
    }
}
