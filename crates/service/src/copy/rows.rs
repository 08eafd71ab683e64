//! Which bytes a row needs, and that they are at the target.

use super::runs::{self, Sent};
use super::{Progress, Side, add};
use carrack_catalog::copies::{Row, Runs, Table, Value};
use carrack_domain::{BlobId, Error, Result};

/// Sees to it that the bytes of a row are at the target.
pub(super) async fn send(
    from: &Side,
    to: &Side,
    table: &Table,
    row: &Row,
    progress: &Progress,
) -> Result<Sent> {
    match table.runs {
        Runs::None => Ok(Sent::Whole),
        Runs::One(name, size) => match (&row[name], row[size].number().unwrap_or(0)) {
            (Value::Null, _) | (_, 0) => Ok(Sent::Whole),
            (name, size) => runs::send_alone(from, to, (id(name)?, size), progress).await,
        },
        Runs::Blob => send_blob(from, to, table, row, progress).await,
    }
}

async fn send_blob(from: &Side, to: &Side, table: &Table, row: &Row, progress: &Progress) -> Result<Sent> {
    let value = |name: &str| table.column(name).and_then(|at| row.get(at)).unwrap_or(&Value::Null);
    let blob = from.catalog.blob(&id(&row[0])?).await?.ok_or_else(|| unreadable("a blob"))?;
    let Some(content) = value("content").bytes() else {
        // Nothing points at it, and nothing will: its bytes may be gone already.
        let is_left = value("file_count") == &Value::Int(0) && !from.catalog.is_held(&blob.id).await?;
        return if is_left { Ok(Sent::Whole) } else { runs::send_blob(from, to, &blob, progress).await };
    };
    let sent = runs::check_content(&blob, content);
    if sent == Sent::Whole {
        add(&progress.sent_bytes, blob.size);
        add(&progress.sent, 1);
    }
    Ok(sent)
}

fn id(value: &Value) -> Result<BlobId> {
    let bytes = value.bytes().and_then(|bytes| bytes.try_into().ok());
    bytes.map(BlobId::from_bytes).ok_or_else(|| unreadable("an id"))
}

fn unreadable(what: &str) -> Error {
    Error::broken(format!("the source holds {what} that cannot be read"))
}
