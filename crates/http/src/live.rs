//! Progress as it happens: server-sent events (WHATWG HTML §9.2).

use crate::archives::{progress, render_archive};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::guard::Guard;
use crate::render::{self, Response};
use bytes::Bytes;
use carrack_domain::access::{UseArchives, authorize};
use carrack_domain::archive::Archive;
use carrack_domain::job::{JobState, Progress};
use carrack_domain::{Grant, Result};
use carrack_service::archive::Watching;
use carrack_service::job::Moment;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time between two tellings: at most four a second.
pub(crate) const PACE: Duration = Duration::from_millis(250);
/// A line that says nothing, so that proxies see that the connection lives.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// The facts are looked up so often although nobody told of news: what was told may have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches an archive: events `state` (the archive, as `GET` shows it) and `progress`, the present ones first, until its last
/// state. Whoever comes back with `Last-Event-ID` is told only what is new to them.
#[utoipa::path(
    get, path = "/v1/archives/{id}/events", tag = "archives",
    params(("id" = String, Path), ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.")),
    responses((status = 200, description = "Events `state` and `progress`.", content_type = "text/event-stream"), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn events(call: Call) -> Result<Response> {
    let grant = authorize::<UseArchives>(&call.principal, ())?;
    let id = call.archive_id()?;
    let watching = call.app.service.archives.watch(&grant, id).await?;
    let seen = call.header("last-event-id").map(str::to_owned);
    let base_url = call.base_url();
    let follow = Follow::new(call.app.clone(), grant, base_url, watching, seen);
    let guard = Guard::new(call.app.clone(), call.principal.clone());
    let stream = futures_util::stream::unfold((follow, guard), |(mut follow, mut guard)| async move {
        let text = tokio::select! {
            text = follow.next() => text?,
            () = guard.ended() => return None,
        };
        Some((Ok(Bytes::from(text)), (follow, guard)))
    });
    let mut response = render::empty(StatusCode::OK).map(|_| ResponseBody::stream(Box::pin(stream)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Somebody who follows an archive.
pub(crate) struct Follow {
    app: std::sync::Arc<crate::App>,
    grant: Grant<UseArchives>,
    base_url: String,
    watching: Watching,
    archive: Archive,
    /// Events that are due.
    due: VecDeque<String>,
    /// What was told last.
    told: Option<(JobState, Progress)>,
    next_at: Instant,
    /// There is news that has not been looked up yet.
    stale: bool,
    over: bool,
}

/// The name of an event: it says how things were, so that whoever has seen it need not hear it again.
fn event_id(state: JobState, progress: Progress) -> String {
    format!("{state}-{}-{}", progress.entries, progress.bytes)
}

/// News of an archive.
pub(crate) enum News {
    /// It is in another state, or is shown for the first time.
    State(Box<carrack_api::Archive>),
    /// More of it is done.
    Progress(carrack_api::ArchiveProgress),
}

impl Follow {
    pub(crate) fn new(
        app: std::sync::Arc<crate::App>,
        grant: Grant<UseArchives>,
        base_url: String,
        watching: Watching,
        seen: Option<String>,
    ) -> Follow {
        let archive = watching.now.clone();
        let mut follow = Follow {
            app,
            grant,
            base_url,
            watching,
            archive,
            due: VecDeque::new(),
            told: None,
            next_at: Instant::now(),
            stale: false,
            over: false,
        };
        let now = (follow.archive.state, follow.archive.progress);
        if seen.as_deref() == Some(&event_id(now.0, now.1)) {
            follow.told = Some(now);
            follow.over = now.0.is_last();
        } else {
            let news = follow.news();
            follow.write(news);
        }
        follow
    }

    /// What is new since the last telling.
    fn news(&mut self) -> Vec<News> {
        let now = (self.archive.state, self.archive.progress);
        let before = self.told.replace(now);
        let mut news = Vec::new();
        if before.is_none_or(|(_, progress)| progress != now.1) {
            news.push(News::Progress(progress(&self.archive, now.1)));
        }
        if before.is_none_or(|(state, _)| state != now.0) {
            news.push(News::State(Box::new(render_archive(&self.base_url, self.archive.clone()))));
        }
        self.over = now.0.is_last();
        news
    }

    fn write(&mut self, news: Vec<News>) {
        let id = event_id(self.archive.state, self.archive.progress);
        for one in news {
            let (name, data) = match &one {
                News::State(archive) => ("state", serde_json::to_string(archive)),
                News::Progress(progress) => ("progress", serde_json::to_string(progress)),
            };
            let data = data.unwrap_or_default();
            self.due.push_back(format!("event: {name}\nid: {id}\ndata: {data}\n\n"));
        }
    }

    /// The next event, or a sign of life; `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Option<String> {
        let alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            if let Some(text) = self.due.pop_front() {
                return Some(text);
            }
            if self.over || self.app.service.health.draining() {
                return None;
            }
            match tokio::time::timeout_at(alive_at, self.advance()).await {
                Ok(Some(news)) => self.write(news),
                Ok(None) => return None,
                Err(_) => return Some(": alive\n\n".to_owned()),
            }
        }
    }

    /// Waits for news, at most four times a second; `None` when the archive is gone. Cancel-safe.
    pub(crate) async fn advance(&mut self) -> Option<Vec<News>> {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            if !self.stale {
                let moment = tokio::select! {
                    moment = self.watching.next() => moment,
                    () = tokio::time::sleep(LOOK_EVERY) => None,
                    () = self.app.service.health.drained() => return None,
                };
                self.next_at = Instant::now() + PACE;
                match moment {
                    Some(Moment { state, progress }) if state == self.archive.state && !state.is_last() => {
                        self.archive.progress = progress;
                    }
                    // A new state has facts of its own, such as the size or what went wrong.
                    _ => self.stale = true,
                }
            }
            if self.stale {
                let id = self.archive.id;
                self.archive = self.app.service.archives.get(&self.grant, id).await.ok()?;
                self.stale = false;
            }
            let news = self.news();
            if !news.is_empty() {
                return Some(news);
            }
        }
    }

    /// What there is to tell at the beginning.
    pub(crate) fn first(&mut self) -> Vec<News> {
        self.due.clear();
        self.told = None;
        self.news()
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }
}
