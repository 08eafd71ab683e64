//! Transfers as a WebSocket tells of them: one upload, or all that goes in and out.

use crate::App;
use crate::live::PACE;
use crate::uploads::render_upload;
use carrack_domain::access::UseUploads;
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use carrack_service::Watch;
use carrack_service::transfers::Shown;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// What there is to tell: names of events, and what comes with them.
pub(crate) type Events = Vec<(&'static str, Value)>;

/// Value of anything that is told.
pub(crate) fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Transfers that are followed.
pub(crate) struct Transfers {
    app: Arc<App>,
    grant: Grant<UseUploads>,
    followed: Followed,
    /// Hints of uploads.
    hints: Box<dyn Watch>,
    next_at: Instant,
    /// There is news that has not been looked up yet.
    stale: bool,
    told: Value,
}

enum Followed {
    One(UploadId),
    All(Open),
}

/// All that is under way.
struct Open {
    /// The uploads, as the catalog knew them at the last hint.
    uploads: Value,
    /// Downloads that begin and end.
    changes: watch::Receiver<()>,
    /// Downloads are shown: how far they are changes without a hint.
    moving: bool,
}

impl Transfers {
    /// Follows one upload of the caller's; how it is now.
    pub(crate) async fn one(
        app: Arc<App>,
        grant: Grant<UseUploads>,
        id: UploadId,
    ) -> Result<(Transfers, (&'static str, Value))> {
        let hints = app.service.uploads.watch(&grant, id).await?.1;
        Transfers::begin(app, grant, Followed::One(id), hints).await
    }

    /// Follows all uploads and downloads of the caller's; how they are now.
    pub(crate) async fn all(
        app: Arc<App>,
        grant: Grant<UseUploads>,
    ) -> Result<(Transfers, (&'static str, Value))> {
        let hints = app.service.uploads.watch_all(&grant).await?;
        let changes = app.service.transfers.changes();
        let open = Open { uploads: Value::Null, changes, moving: false };
        Transfers::begin(app, grant, Followed::All(open), hints).await
    }

    async fn begin(
        app: Arc<App>,
        grant: Grant<UseUploads>,
        followed: Followed,
        hints: Box<dyn Watch>,
    ) -> Result<(Transfers, (&'static str, Value))> {
        let next_at = Instant::now();
        let mut transfers =
            Transfers { app, grant, followed, hints, next_at, stale: true, told: Value::Null };
        let now = transfers.look().await;
        let (event, data) =
            now.ok_or_else(|| Error::new(Code::UploadNotFound, "There is no such upload."))?;
        transfers.stale = false;
        transfers.told = data.clone();
        Ok((transfers, (event, data)))
    }

    /// How things are now; `None` when the upload is gone.
    async fn look(&mut self) -> Option<(&'static str, Value)> {
        let uploads = &self.app.service.uploads;
        match &mut self.followed {
            Followed::One(id) => {
                let status = uploads.status(&self.grant, *id).await.ok()?;
                Some(("upload", to_value(&render_upload(status))))
            }
            Followed::All(open) => {
                if self.stale {
                    let all = uploads.list(&self.grant, None).await.ok()?;
                    let all: Vec<_> = all.into_iter().map(render_upload).collect();
                    open.uploads = to_value(&all);
                }
                let downloads = self.app.service.transfers.shown_to(self.grant.principal());
                open.moving = !downloads.is_empty();
                let downloads: Vec<Value> = downloads.iter().map(render_download).collect();
                Some(("transfers", json!({ "uploads": open.uploads, "downloads": downloads })))
            }
        }
    }

    /// Waits until there may be news; whether nothing more will come. Cancel-safe.
    async fn wait(&mut self) -> bool {
        let Followed::All(open) = &mut self.followed else {
            // A hint, or that one may have been missed: both times the facts are looked at.
            self.hints.next().await;
            self.stale = true;
            return false;
        };
        tokio::select! {
            biased;
            _ = self.hints.next() => {
                self.stale = true;
                false
            }
            gone = open.changes.changed() => gone.is_err(),
            // How far they are is told at the usual pace, without a hint.
            () = std::future::ready(()), if open.moving => false,
        }
    }

    /// Waits for news; an empty list when nothing more will come. Cancel-safe.
    pub(crate) async fn advance(&mut self) -> Events {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            if !self.stale {
                if self.wait().await {
                    return Vec::new();
                }
                self.next_at = Instant::now() + PACE;
            }
            let now = self.look().await;
            self.stale = false;
            match now {
                None => return vec![("gone", Value::Null)],
                Some((event, data)) if data != self.told => {
                    self.told = data.clone();
                    return vec![(event, data)];
                }
                Some(_) => {}
            }
        }
    }
}

fn render_download(shown: &Shown) -> Value {
    to_value(&carrack_api::Download {
        id: shown.id,
        name: shown.name.clone(),
        kind: shown.kind.as_str().to_owned(),
        size: shown.size,
        sent: shown.sent,
        state: shown.standing.as_str().to_owned(),
        owner: shown.owner.clone(),
        began_at: shown.began_at.to_string(),
    })
}
