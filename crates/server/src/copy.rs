//! What `carrack copy` does: opens both installations, and nobody else may have them open meanwhile; copies; takes what stands
//! beside the catalog along.

mod beside;
mod shown;

use crate::clock::CommonClock;
use crate::config::{self, CatalogUrl, Config};
use crate::data::{self, DataFolder};
use crate::rooms::{self, Use};
use crate::system::SystemClock;
use crate::telemetry;
use carrack_catalog::copies::Totals;
use carrack_service::copy::{self, Copier, Progress, Side};
use shown::Shown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Uploads that are named when they stand in the way.
const NAMED_MAX: usize = 20;

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The installation to copy: its settings file, or its data folder when everything else is as by default.
    pub from: PathBuf,
    /// The one to fill.
    pub to: PathBuf,
    /// Only says what there is to be done.
    pub dry_run: bool,
    /// Contents that are sent at the same time, at least 1.
    pub at_once: usize,
    /// Leaves open uploads behind, instead of refusing while there are any.
    pub leave_uploads: bool,
    /// Leaves the target marked as unfinished: another run is to follow.
    pub preliminary: bool,
}

/// An installation, opened and locked.
struct Opened {
    config: Config,
    side: Side,
    folder: DataFolder,
}

/// Copies; whether all of it is at the target. The error is a sentence for the operator.
pub(crate) async fn run(options: &CopyOptions) -> Result<bool, String> {
    let from = config::load_side(&options.from, "from").map_err(|error| format!("--from: {error}"))?;
    let to = config::load_side(&options.to, "to").map_err(|error| format!("--to: {error}"))?;
    refuse_same(&from, &to)?;
    let keys = beside::keys(&from, &to)?;
    let from = open(from, "--from").await?;
    let totals = copy::totals(&from.side).await.map_err(|error| error.chain())?;
    let left = uploads(&from.side, &totals, options).await?;
    telemetry::note(&format!("to be copied: {}", shown::totals(&totals)));
    if options.dry_run {
        left.iter().for_each(|left| telemetry::note(left));
        telemetry::note("nothing was done, and the target was not looked at: this was a dry run");
        return close(&from).await.map(|()| true);
    }
    let to = open(to, "--to").await?;
    let done = fill(&from, &to, &totals, options).await;
    let whole = match done {
        Ok(true) => {
            beside::take_along(&from.config, &to.config, &keys)?;
            finish(&from, &to, options).await
        }
        other => other,
    };
    close(&to).await?;
    close(&from).await?;
    if let (Ok(true), Some(left)) = (&whole, left) {
        telemetry::note(&left);
    }
    whole
}

async fn fill(from: &Opened, to: &Opened, totals: &Totals, options: &CopyOptions) -> Result<bool, String> {
    let progress = Arc::new(Progress::default());
    let shown = Arc::new(Shown::new(progress.clone(), totals.bytes));
    let tell = {
        let shown = shown.clone();
        Box::new(move |line: &str| shown.line(line))
    };
    let copier = Copier::new(from.side.clone(), to.side.clone(), options.at_once, progress, tell);
    copier.admit().await.map_err(|error| refused(&error))?;
    let copying = copier.run(&SystemClock);
    let done = shown.while_running(copying).await;
    match done {
        Ok(true) => {
            shown.summary("all of it is at the target");
            Ok(true)
        }
        Ok(false) => {
            shown.summary("NOT all of it is at the target");
            telemetry::note(
                "What is damaged is named above. Restore it at the source, or delete those files there, and run the same again; \
                 until then the target cannot be served.",
            );
            Ok(false)
        }
        Err(error) => {
            shown.summary("broken off");
            Err(format!("{}; run the same again to go on", error.chain()))
        }
    }
}

async fn finish(from: &Opened, to: &Opened, options: &CopyOptions) -> Result<bool, String> {
    if options.preliminary {
        telemetry::note(
            "preliminary: the target stays unfinished. Stop the source's servers, and run the same without --preliminary.",
        );
        return Ok(true);
    }
    let copier =
        Copier::new(from.side.clone(), to.side.clone(), 1, Arc::new(Progress::default()), Box::new(|_| {}));
    copier.finish(&SystemClock).await.map_err(|error| error.chain())?;
    telemetry::note("done: the target can be served. Keep the source until you have seen that it is.");
    Ok(true)
}

/// A refusal has its sentence, a fault its causes.
fn refused(error: &carrack_domain::Error) -> String {
    match error.code() {
        carrack_domain::Code::InvalidRequest => error.detail().to_owned(),
        _ => error.chain(),
    }
}

fn refuse_same(from: &Config, to: &Config) -> Result<(), String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&from.data) != real(&to.data) {
        return Ok(());
    }
    Err(format!(
        "--from and --to have the same data folder, {}: set data to another one for the target",
        from.data.display()
    ))
}

/// Opens an installation, which nobody else may have open.
async fn open(config: Config, which: &str) -> Result<Opened, String> {
    let failed = |error: String| format!("{which}: {error}");
    if which == "--from" {
        refuse_nothing(&config)?;
    }
    let folder = data::open(&config.data, false).map_err(failed)?;
    let storage = rooms::open_storage(&config, &folder).await.map_err(failed)?;
    let clock = Arc::new(CommonClock::default());
    let rooms = rooms::open_catalog(&config, &folder, &*storage, Use::Copy, &clock).await.map_err(failed)?;
    let catalog = rooms.catalog;
    let others = catalog.others().await.map_err(|error| failed(error.chain()))?;
    if others > 0 {
        return Err(failed(format!(
            "the database is in use: {others} sessions of servers. Stop every server of it first."
        )));
    }
    Ok(Opened { config, side: Side { catalog, storage }, folder })
}

/// Opening would make a new one.
fn refuse_nothing(config: &Config) -> Result<(), String> {
    let is_there = match config.catalog.url {
        CatalogUrl::Sqlite => config.data.join("catalog.sqlite").is_file(),
        CatalogUrl::Postgres(_) => true,
    };
    if is_there {
        return Ok(());
    }
    Err(format!(
        "--from: {} has no catalog.sqlite: name the data folder of a server, or its settings file",
        config.data.display()
    ))
}

async fn close(opened: &Opened) -> Result<(), String> {
    let closed = opened.side.catalog.close().await;
    closed.map_err(|error| {
        format!("the catalog of {} could not be closed: {}", opened.folder.path.display(), error.chain())
    })
}

/// Open uploads stand in the way, unless they are to be left; what to say of those at the end.
async fn uploads(from: &Side, totals: &Totals, options: &CopyOptions) -> Result<Option<String>, String> {
    if totals.open_uploads == 0 {
        return Ok(None);
    }
    let named = copy::open_uploads(from, NAMED_MAX).await.map_err(|error| error.chain())?;
    let mut lines: Vec<String> = named
        .iter()
        .map(|upload| {
            let state = if upload.finishing { "being completed" } else { "open" };
            format!("  {} by {} to {}: {state}", upload.id, upload.owner, upload.place)
        })
        .collect();
    if let Some(more) = totals.open_uploads.checked_sub(named.len() as u64).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    let count = totals.open_uploads;
    let list = lines.join("\n");
    if options.leave_uploads || options.dry_run {
        let said = format!(
            "{count} uploads that are not complete are left behind, and have to be begun again:\n{list}"
        );
        return Ok(Some(said));
    }
    Err(format!(
        "{count} uploads are not complete, and what they have so far cannot be copied:\n{list}\nStart the source and let them be \
         completed, or delete them; or leave them behind with --leave-uploads. Nothing was copied."
    ))
}
