//! Moving one installation to another: all facts, and all bytes that they need.
//!
//! *Bytes before records.* A row whose bytes are in storage is put into the target once they are there, read back and found to
//! be the same. So a row that is there vouches for its bytes, and whoever goes on after an interruption, at whatever moment,
//! sends nothing twice.
//! *A walk by keys.* Each table is walked on both sides at once, and what differs is put, or deleted: nothing depends on how far
//! an earlier run came, or on the source having stood still since. At the end both sides are read again and must be the same.
//! *Damage* at the source is told of, what depends on it is left out, and everything else goes over; the target then stays
//! unfinished.

mod rows;
mod runs;
mod walk;

use carrack_catalog::copies::{
    CopyCatalog, CopyState, OPEN_UPLOADS, Range, Row, Runs, TABLES, Table, Totals, Value,
};
use carrack_domain::id::hex;
use carrack_domain::{Clock, Code, Error, Result};
use carrack_storage::Storage;
use runs::Sent;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;
use walk::Walk;

/// Rows that are put together, when their bytes are sent one by one.
const READY_ROWS: usize = 64;
/// Bytes of contents in them, at most about.
const READY_BYTES: usize = 4 << 20;

/// A catalog and its storage.
#[derive(Clone)]
pub struct Side {
    /// The facts.
    pub catalog: Arc<dyn CopyCatalog>,
    /// The bytes.
    pub storage: Arc<dyn Storage>,
}

/// What has been done so far; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of contents that were sent, by this run.
    pub sent_bytes: AtomicU64,
    /// Contents that were sent.
    pub sent: AtomicU64,
    /// Bytes of contents that were there from an earlier run.
    pub kept_bytes: AtomicU64,
    /// Contents that were there.
    pub kept: AtomicU64,
    /// Rows that were put.
    pub rows: AtomicU64,
    /// Rows that were compared at the end.
    pub compared: AtomicU64,
    /// What is damaged, or cannot be copied because something is.
    pub damaged: AtomicU64,
}

impl Progress {
    /// One of its numbers.
    pub fn get(number: &AtomicU64) -> u64 {
        number.load(Ordering::Relaxed)
    }
}

fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

/// Told of every damage, in words for the operator.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// See the module's documentation.
pub struct Copier {
    from: Side,
    to: Side,
    at_once: usize,
    progress: Arc<Progress>,
    tell: Tell,
}

/// An upload that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// Its id, in hex.
    pub id: String,
    /// Whose.
    pub owner: String,
    /// Where to.
    pub place: String,
    /// Whether a completion of it was interrupted.
    pub finishing: bool,
}

/// What is not at the target, by the first column of its table.
type Missing = HashMap<&'static str, HashSet<Value>>;

impl Copier {
    /// Copies `at_once` contents at the same time, at least one.
    pub fn new(from: Side, to: Side, at_once: usize, progress: Arc<Progress>, tell: Tell) -> Copier {
        Copier { from, to, at_once: at_once.max(1), progress, tell }
    }

    /// Whether the target may be filled: it is empty, or the unfinished copy of this source. The error says what else it is.
    pub async fn admit(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(Code::InvalidRequest, why));
        let (from, to) = (self.from.catalog.identity().await?, self.to.catalog.identity().await?);
        match self.to.catalog.copy_state().await? {
            CopyState::Begun(_) if from.log == to.log => Ok(()),
            CopyState::Begun(_) => refuse(
                "the target is the unfinished copy of another installation: name that one with --from, or an empty target \
                 with --to",
            ),
            CopyState::Done(at) => refuse(&format!(
                "the target was filled by a copy that was finished at {at}, and may have been served since: name an empty \
                 target with --to"
            )),
            CopyState::None if !self.to.catalog.is_empty().await? => {
                refuse("the target holds other data: name an empty database or folder with --to")
            }
            CopyState::None => {
                for shard in 0..=u8::MAX {
                    if !self.to.storage.blobs(shard).await?.is_empty() {
                        return refuse(
                            "the target's storage holds other files: name an empty folder, bucket or prefix",
                        );
                    }
                }
                Ok(())
            }
        }
    }

    /// Copies everything. Whether all of it is at the target; it is not while something is damaged. The mark stays until
    /// [`Copier::finish`].
    pub async fn run(&self, clock: &dyn Clock) -> Result<bool> {
        let identity = self.from.catalog.identity().await?;
        self.to.catalog.begin_copy(&identity, clock.now()).await?;
        for table in TABLES.iter().rev().filter(|table| table.runs != Runs::Blob) {
            self.drop_extra(table).await?;
        }
        let mut missing = Missing::new();
        for table in &TABLES {
            match table.runs {
                Runs::None => self.put_table(table, &mut missing).await?,
                Runs::Blob | Runs::One(..) => self.put_with_bytes(table, &mut missing).await?,
            }
        }
        for table in TABLES.iter().filter(|table| table.runs == Runs::Blob) {
            self.drop_extra(table).await?;
        }
        if missing.values().any(|some| !some.is_empty()) {
            return Ok(false);
        }
        self.compare().await?;
        Ok(true)
    }

    /// Takes the target's mark away, once everything is there.
    pub async fn finish(&self, clock: &dyn Clock) -> Result<()> {
        let identity = self.from.catalog.identity().await?;
        self.to.catalog.finish_copy(&identity, clock.now()).await
    }

    fn walk(&self, table: &'static Table) -> Walk {
        Walk::new(self.from.catalog.clone(), self.to.catalog.clone(), table)
    }

    /// Deletes what the source has no more.
    async fn drop_extra(&self, table: &'static Table) -> Result<()> {
        if self.to.catalog.copy_rows(table, Range::default(), 1).await?.is_empty() {
            return Ok(());
        }
        let mut walk = self.walk(table);
        while let Some(page) = walk.next().await? {
            if !page.extra.is_empty() {
                self.to.catalog.drop_rows(table, page.extra).await?;
            }
        }
        Ok(())
    }

    async fn put_table(&self, table: &'static Table, missing: &mut Missing) -> Result<()> {
        let mut walk = self.walk(table);
        while let Some(page) = walk.next().await? {
            let mut rows = Vec::with_capacity(page.new.len() + page.changed.len());
            for row in page.new.into_iter().chain(page.changed) {
                if self.is_possible(table, &row, missing) {
                    rows.push(row);
                }
            }
            self.put(table, rows).await?;
        }
        Ok(())
    }

    async fn put(&self, table: &'static Table, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let count = rows.len() as u64;
        self.to.catalog.put_rows(table, rows).await?;
        add(&self.progress.rows, count);
        Ok(())
    }

    /// Whether what a row names is there; what cannot be without it is missing too.
    fn is_possible(&self, table: &'static Table, row: &Row, missing: &mut Missing) -> bool {
        let lacks = |(column, parent): &(usize, &'static str)| {
            missing.get(parent).is_some_and(|some| some.contains(&row[*column]))
        };
        if !table.parents.iter().any(lacks) {
            return true;
        }
        if table.name == "file" {
            let key = row[1].bytes().map(String::from_utf8_lossy).unwrap_or_default();
            self.damaged(&format!("file {key}: not copied, its content {} is damaged", shown(&row[2])));
        }
        missing.entry(table.name).or_default().insert(row[0].clone());
        false
    }

    fn damaged(&self, line: &str) {
        add(&self.progress.damaged, 1);
        (self.tell)(line);
    }

    /// Rows with their bytes, several at a time.
    async fn put_with_bytes(&self, table: &'static Table, missing: &mut Missing) -> Result<()> {
        let mut walk = self.walk(table);
        let mut under_way = JoinSet::new();
        let (mut ready, mut ready_bytes) = (Vec::new(), 0);
        while let Some(page) = walk.next().await? {
            self.keep(table, page.same, page.same_bytes);
            // A blob that is there vouches for its bytes, whatever else was learnt of it; an archive may have others by now.
            let (changed, unsure) = match table.runs {
                Runs::Blob => (page.changed, Vec::new()),
                Runs::None | Runs::One(..) => (Vec::new(), page.changed),
            };
            ready.extend(changed);
            for row in page.new.into_iter().chain(unsure) {
                while under_way.len() >= self.at_once {
                    self.settle(table, &mut under_way, &mut ready, missing).await?;
                }
                ready_bytes += row.iter().map(Value::size).sum::<usize>();
                let (from, to, progress) = (self.from.clone(), self.to.clone(), self.progress.clone());
                under_way.spawn(async move {
                    let sent = rows::send(&from, &to, table, &row, &progress).await;
                    (row, sent)
                });
                if ready.len() >= READY_ROWS || ready_bytes > READY_BYTES {
                    ready_bytes = 0;
                    self.put(table, std::mem::take(&mut ready)).await?;
                }
            }
        }
        while !under_way.is_empty() {
            self.settle(table, &mut under_way, &mut ready, missing).await?;
        }
        self.put(table, ready).await
    }

    fn keep(&self, table: &Table, rows: u64, bytes: u64) {
        if table.runs == Runs::Blob {
            add(&self.progress.kept, rows);
        }
        add(&self.progress.kept_bytes, bytes);
    }

    /// Waits for one of those under way.
    async fn settle(
        &self,
        table: &'static Table,
        under_way: &mut JoinSet<(Row, Result<Sent>)>,
        ready: &mut Vec<Row>,
        missing: &mut Missing,
    ) -> Result<()> {
        let Some(done) = under_way.join_next().await else { return Ok(()) };
        let (row, sent) = done.map_err(|error| Error::internal("copy a content", error))?;
        match sent? {
            Sent::Whole => ready.push(row),
            Sent::Damaged(why) => {
                self.damaged(&format!("{} {}: {why}", table.name, shown(&row[0])));
                missing.entry(table.name).or_default().insert(row[0].clone());
            }
        }
        Ok(())
    }

    /// Reads both sides from end to end: they must be the same.
    async fn compare(&self) -> Result<()> {
        for table in &TABLES {
            let mut walk = self.walk(table);
            while let Some(page) = walk.next().await? {
                let differ = page.new.len() + page.changed.len() + page.extra.len();
                if differ > 0 {
                    return Err(Error::broken(format!(
                        "{differ} rows of {} are not the same at the target: something else writes to it, or to the source. \
                         Stop that and run the same again",
                        table.name
                    )));
                }
                add(&self.progress.compared, page.same);
            }
        }
        Ok(())
    }
}

/// How much a source has.
pub async fn totals(side: &Side) -> Result<Totals> {
    side.catalog.totals().await
}

/// Uploads that are not complete, at most `limit`.
pub async fn open_uploads(side: &Side, limit: usize) -> Result<Vec<OpenUpload>> {
    let rows = side.catalog.copy_rows(&OPEN_UPLOADS, Range::default(), limit).await?;
    let upload = |row: Row| OpenUpload {
        id: shown(&row[0]),
        owner: row[1].text().unwrap_or_default().to_owned(),
        place: format!(
            "{}/{}",
            row[2].text().unwrap_or_default(),
            row[3].bytes().map(String::from_utf8_lossy).unwrap_or_default()
        ),
        finishing: row[4] == Value::Int(1),
    };
    Ok(rows.into_iter().map(upload).collect())
}

fn shown(id: &Value) -> String {
    id.bytes().map(hex).unwrap_or_default()
}
