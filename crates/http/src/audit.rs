//! `/v1/audit`: who did what.

use crate::call::{self, Call};
use crate::compress;
use crate::render::{self, Response};
use carrack_api::{AuditPage, AuditRecord};
use carrack_domain::access::{ReadAudit, authorize};
use carrack_domain::{Code, Error, Result, Timestamp};
use carrack_service::audit::{PAGE_MAX, Position, Query};
use http::StatusCode;

/// Records of a page unless the client wishes fewer.
const PAGE_DEFAULT: usize = 100;

/// Records of the audit log, oldest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "operations",
    params(
        ("since" = Option<String>, Query, description = "Not older than this moment (RFC 3339)."),
        ("until" = Option<String>, Query, description = "Older than this moment."),
        ("subject" = Option<String>, Query, description = "Of this subject."),
        ("bucket" = Option<String>, Query, description = "About this bucket."),
        ("key" = Option<String>, Query, description = "About this key."),
        ("action" = Option<String>, Query, description = "This action, such as `file.read`, or all of a kind, such as `file`."),
        ("limit" = Option<usize>, Query, description = "The most records of a page, 1 to 1000."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, body = AuditPage), (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<ReadAudit>(&call.principal, ())?;
    let text = |name| call.query(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let query = Query {
        since: time(&call, "since")?,
        until: time(&call, "until")?,
        subject: text("subject"),
        bucket: text("bucket"),
        key: text("key"),
        action: text("action"),
    };
    let limit = match call.query("limit") {
        None => PAGE_DEFAULT,
        Some(text) => text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
            Error::new(Code::InvalidRequest, format!("limit is a number from 1 to {PAGE_MAX}."))
        })?,
    };
    let from = call.query("cursor").map(position).transpose()?;
    let page = call.app.service.audit.page(&grant, &query, from, limit).await?;
    let record = |line: &str| {
        serde_json::from_str::<AuditRecord>(line).map_err(|error| Error::internal("read a record", error))
    };
    let page = AuditPage {
        records: page.records.iter().map(|(_, line)| record(line)).collect::<Result<_>>()?,
        next_cursor: page.next.map(|next| call::cursor(&format!("{}.{}", next.block, next.line))),
    };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &page)).await
}

fn time(call: &Call, name: &str) -> Result<Option<Timestamp>> {
    let Some(text) = call.query(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    // A '+' that was not encoded reads as a space.
    Timestamp::parse(&text.replace(' ', "+")).map(Some).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("{name} is a time such as 2026-11-21T18:00:00Z."))
    })
}

fn position(cursor: &str) -> Result<Position> {
    let text = call::parse_cursor(cursor)?;
    let parsed = text
        .split_once('.')
        .and_then(|(block, line)| Some(Position { block: block.parse().ok()?, line: line.parse().ok()? }));
    parsed.filter(|position| i64::try_from(position.block).is_ok()).ok_or_else(|| {
        Error::new(Code::InvalidRequest, "This cursor is none: pass 'next_cursor' of the page before.")
    })
}
