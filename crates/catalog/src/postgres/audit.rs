//! The audit log: blocks in a table, which who has the turn adds to.

use super::error::Done;
use super::rows::{bytes, fixed, get, number, time};
use super::session::{Session, params};
use crate::audit::{AuditBlock, AuditPage, AuditQuery, Position};
use crate::common::journal::{Filling, Journal, LOOKED_AT_BYTES, Packed, unpack};
use crate::common::values::{damaged, signed};
use carrack_domain::Timestamp;
use carrack_domain::audit::chain::{ChainId, Hash, Head, Header};
use tokio_postgres::Row;

const HEADER: &str = "seq, at, records, prev, content, hash, audit_chain.id";
const INSERT: &str = "INSERT INTO audit_block (seq, at, records, prev, content, hash, size, zstd, body) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// Blocks fetched in one go.
const STEP: i64 = 64;

/// Makes [`append`] one message to the server.
pub(super) async fn prepare(session: &Session) -> Done<()> {
    session.prepare(INSERT).await
}

/// Adds a block.
pub(super) async fn append(session: &Session, journal: &mut Journal, packed: &Packed) -> Done<()> {
    let header = journal.add(packed);
    let values = params![
        signed(header.block)?,
        header.at.as_millis(),
        signed(header.records)?,
        bytes(&header.prev.0),
        bytes(&header.content.0),
        bytes(&header.hash.0),
        packed.size as i64,
        packed.zstd,
        packed.body,
    ];
    session.execute(INSERT, values).await?;
    Ok(())
}

fn header(row: &Row) -> Done<Header> {
    Ok(Header {
        block: number(row, 0)?,
        chain: ChainId(fixed(row, 6)?),
        prev: Hash(fixed(row, 3)?),
        at: time(row, 1)?,
        records: number(row, 2)?,
        content: Hash(fixed(row, 4)?),
        hash: Hash(fixed(row, 5)?),
    })
}

pub(super) async fn head(session: &Session) -> Done<Head> {
    // The chain's name comes with the block, or alone when there is none.
    let sql = format!(
        "SELECT {HEADER} FROM audit_chain LEFT JOIN LATERAL \
         (SELECT * FROM audit_block ORDER BY seq DESC LIMIT 1) AS last ON true"
    );
    let row = session.row(&sql, &[]).await?.ok_or_else(|| damaged("audit_chain"))?;
    match get::<Option<i64>>(&row, 0)? {
        Some(_) => Ok(header(&row)?.head()),
        None => Ok(Head::new(ChainId(fixed(&row, 6)?))),
    }
}

/// The first block whose time is not before `since`. Times never go back along the chain.
async fn first_since(session: &Session, since: Timestamp) -> Done<i64> {
    let ends = session.row("SELECT min(seq), max(seq) FROM audit_block", &[]).await?;
    let Some(ends) = ends else { return Ok(1) };
    let (Some(mut low), Some(high)) = (get::<Option<i64>>(&ends, 0)?, get::<Option<i64>>(&ends, 1)?) else {
        return Ok(1);
    };
    let mut high = high + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let row = session.row("SELECT at FROM audit_block WHERE seq = $1", params![middle]).await?;
        let at: Option<i64> = row.map(|row| get(&row, 0)).transpose()?;
        if at.is_some_and(|at| at < since.as_millis()) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

async fn some_blocks(session: &Session, from: i64) -> Done<Vec<Row>> {
    let sql = format!(
        "SELECT {HEADER}, size, zstd, body FROM audit_block CROSS JOIN audit_chain WHERE seq >= $1 ORDER BY seq LIMIT $2"
    );
    session.rows(&sql, params![from, STEP]).await
}

pub(super) async fn page(
    session: &Session,
    query: &AuditQuery,
    from: Option<Position>,
    limit: usize,
) -> Done<AuditPage> {
    let since = match query.since {
        Some(since) => first_since(session, since).await?,
        None => 1,
    };
    let mut next = signed(from.map_or(0, |from| from.block))?.max(since);
    let mut filling = Filling::new(query, from, limit);
    loop {
        let found = some_blocks(session, next).await?;
        for row in &found {
            let block = number(row, 0)?;
            let text = |row: &Row| -> Done<_> { Ok(unpack(get(row, 7)?, get(row, 8)?, get(row, 9)?)?) };
            if !filling.wants(block, get(row, 1)?) || !filling.take(block, text(row)?)? {
                return Ok(filling.page);
            }
            next = signed(block)? + 1;
        }
        if (found.len() as i64) < STEP {
            return Ok(filling.page);
        }
    }
}

pub(super) async fn blocks(session: &Session, after: u64) -> Done<Vec<AuditBlock>> {
    let (mut blocks, mut size) = (Vec::new(), 0);
    for row in some_blocks(session, signed(after)?.saturating_add(1)).await? {
        let text = unpack(get(&row, 7)?, get(&row, 8)?, get(&row, 9)?)?;
        size += text.as_ref().map_or(0, Vec::len) as u64;
        blocks.push(AuditBlock { header: header(&row)?, text });
        if size >= LOOKED_AT_BYTES {
            break;
        }
    }
    Ok(blocks)
}

pub(super) async fn older(session: &Session, before: Timestamp) -> Done<Option<Head>> {
    let first = first_since(session, before).await?;
    let end = signed(head(session).await?.block)?;
    let sql = format!(
        "SELECT {HEADER} FROM audit_block CROSS JOIN audit_chain WHERE seq <= $1 ORDER BY seq DESC LIMIT 1"
    );
    let row = session.row(&sql, params![(first - 1).min(end - 1)]).await?;
    row.map(|row| Ok(header(&row)?.head())).transpose()
}

pub(super) async fn drop_through(session: &Session, through: u64) -> Done<u64> {
    let sql = "DELETE FROM audit_block WHERE seq <= $1 AND seq < (SELECT max(seq) FROM audit_block)";
    session.execute(sql, params![signed(through)?]).await
}
