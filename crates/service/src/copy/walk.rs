//! A table on both sides at once, page by page.

use carrack_catalog::copies::{CopyCatalog, Range, Row, Runs, Table, Value};
use carrack_domain::Result;
use std::cmp::Ordering;
use std::sync::Arc;

/// What a page comes to.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Rows that the target lacks.
    pub(super) new: Vec<Row>,
    /// Rows that it has otherwise.
    pub(super) changed: Vec<Row>,
    /// Keys of rows that the source lacks.
    pub(super) extra: Vec<Row>,
    /// How many are the same.
    pub(super) same: u64,
    /// The bytes in storage of rows that are there, as they say.
    pub(super) same_bytes: u64,
}

/// See the module's documentation.
pub(super) struct Walk {
    from: Arc<dyn CopyCatalog>,
    to: Arc<dyn CopyCatalog>,
    table: &'static Table,
    after: Option<Vec<Value>>,
    is_over: bool,
}

impl Walk {
    pub(super) fn new(from: Arc<dyn CopyCatalog>, to: Arc<dyn CopyCatalog>, table: &'static Table) -> Walk {
        Walk { from, to, table, after: None, is_over: false }
    }

    /// The next page; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Page>> {
        if self.is_over {
            return Ok(None);
        }
        let limit = self.table.page;
        let range = Range { after: self.after.clone(), through: None };
        let rows = self.from.copy_rows(self.table, range.clone(), limit).await?;
        let through = rows.last().map(|last| self.table.key_of(last).to_vec());
        let mut page = Page::default();
        let mut theirs = self.theirs(&range, through.as_ref(), &mut page, rows).await?;
        self.is_over = through.is_none();
        page.extra.append(&mut theirs);
        self.after = through;
        Ok(Some(page))
    }

    /// Goes through what the target has in the same range, in pages of its own; keys that the source lacks.
    async fn theirs(
        &self,
        range: &Range,
        through: Option<&Vec<Value>>,
        page: &mut Page,
        rows: Vec<Row>,
    ) -> Result<Vec<Row>> {
        let table = self.table;
        let mut extra = Vec::new();
        let mut ours = rows.into_iter().peekable();
        let mut after = range.after.clone();
        loop {
            let range = Range { after, through: through.cloned() };
            let theirs = self.to.copy_rows(table, range, table.page).await?;
            let Some(last) = theirs.last() else { break };
            after = Some(table.key_of(last).to_vec());
            for their in theirs {
                while let Some(row) = ours.next_if(|row| compare(table, row, &their) == Ordering::Less) {
                    page.new.push(row);
                }
                match ours.next_if(|row| compare(table, row, &their) == Ordering::Equal) {
                    Some(row) if row == their => {
                        page.same += 1;
                        page.same_bytes += stored_bytes(table, &row);
                    }
                    Some(row) => page.changed.push(row),
                    None => extra.push(table.key_of(&their).to_vec()),
                }
            }
        }
        page.new.extend(ours);
        Ok(extra)
    }
}

/// By their keys, as both catalogs do: numbers by size, text and bytes by their bytes.
fn compare(table: &Table, one: &Row, other: &Row) -> Ordering {
    table.key_of(one).cmp(table.key_of(other))
}

fn stored_bytes(table: &Table, row: &Row) -> u64 {
    let size = match table.runs {
        Runs::None => None,
        Runs::Blob => table.column("size"),
        Runs::One(_, size) => Some(size),
    };
    size.and_then(|at| row[at].number()).unwrap_or(0)
}
