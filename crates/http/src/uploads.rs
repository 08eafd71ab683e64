//! `/v1/uploads`: numbered parts.

use crate::call::{self, Call};
use crate::compress;
use crate::digests;
use crate::files::{check_plain, content_length, stored};
use crate::render::{self, Response};
use carrack_api::{CompleteUpload, CreateUpload, Part, Upload, UploadCreated, UploadList};
use carrack_domain::access::{FileRef, UseUploads, WriteFile, authorize};
use carrack_domain::id::hex;
use carrack_domain::upload::UploadState;
use carrack_domain::{BucketName, Code, Error, Key, Result};
use carrack_service::Outcome;
use carrack_service::upload::{NewUpload, UploadStatus};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

/// Begins an upload in parts. Where `digest` names by its SHA-256 content that the caller may read, the file is there at
/// once.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "uploads", request_body = CreateUpload,
    responses(
        (status = 201, body = UploadCreated), (status = 200, description = "The file, at once.", body = carrack_api::File),
        (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem),
        (status = 412, body = carrack_api::Problem), (status = 413, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn create(mut call: Call) -> Result<Response> {
    let wished: CreateUpload = call.json().await?;
    let place = FileRef { bucket: BucketName::parse(&wished.bucket)?, key: Key::parse(&wished.key)? };
    call.about(&place);
    let grant = authorize::<WriteFile>(&call.principal, place)?;
    let only_create = match wished.if_none_match.as_deref() {
        None => false,
        Some("*") => true,
        Some(_) => return Err(Error::new(Code::InvalidRequest, "if_none_match is \"*\" or absent.")),
    };
    let new = NewUpload {
        size: wished.size,
        part_size: wished.part_size,
        content_type: call::check_content_type(wished.content_type.as_deref())?,
        metadata: call::check_metadata(wished.metadata)?,
        digests: call::json_digests(&wished.digest)?,
        only_create,
    };
    if let Some(file) = call.app.service.uploads.instant(&grant, &new).await? {
        return Ok(stored(&file, Outcome::Replaced));
    }
    let upload = call.app.service.uploads.create(&grant, new).await?;
    let url = format!("{}/v1/uploads/{}", call.base_url(), upload.id);
    let plan = upload.parts()?;
    let created = UploadCreated {
        upload_id: upload.id.to_string(),
        part_size: plan.part_size(),
        part_count: plan.count(),
        expires_at: upload.expires_at.to_string(),
        url: url.clone(),
    };
    let mut response = render::json(StatusCode::CREATED, &created);
    if let Ok(value) = HeaderValue::try_from(url) {
        response.headers_mut().insert(LOCATION, value);
    }
    Ok(response)
}

/// The caller's open uploads.
#[utoipa::path(
    get, path = "/v1/uploads", tag = "uploads", params(("bucket" = Option<String>, Query)),
    responses((status = 200, body = UploadList)), security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let bucket = call.query("bucket").filter(|name| !name.is_empty()).map(BucketName::parse).transpose()?;
    let uploads = call.app.service.uploads.list(&grant, bucket.as_ref()).await?;
    let list = UploadList { uploads: uploads.into_iter().map(render_upload).collect() };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &list)).await
}

/// Where an upload stands.
#[utoipa::path(
    get, path = "/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)),
    responses((status = 200, body = Upload), (status = 404, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn status(call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let status = call.app.service.uploads.status(&grant, call.upload_id()?).await?;
    Ok(render::json(StatusCode::OK, &render_upload(status)))
}

pub(crate) fn render_upload(status: UploadStatus) -> Upload {
    let UploadStatus { upload, received, received_bytes } = status;
    let state = match upload.state {
        UploadState::Open => "open",
        UploadState::Finishing(_) => "finishing",
        UploadState::Complete => "complete",
    };
    Upload {
        upload_id: upload.id.to_string(),
        bucket: upload.target.bucket.to_string(),
        key: upload.target.key.to_string(),
        state: state.to_owned(),
        size: upload.length(),
        part_size: upload.parts().ok().map(|plan| plan.part_size()),
        part_count: upload.parts().ok().map(|plan| plan.count()),
        received,
        received_bytes,
        created_at: upload.created_at.to_string(),
        expires_at: upload.expires_at.to_string(),
    }
}

/// Stores one part; the same part again is fine.
#[utoipa::path(
    put, path = "/v1/uploads/{id}/parts/{number}", tag = "uploads",
    params(
        ("id" = String, Path), ("number" = u64, Path, description = "From 1."),
        ("Content-Digest" = Option<String>, Header, description = "sha-256 or sha-512 of the part (RFC 9530)."),
        ("Content-MD5" = Option<String>, Header),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Part), (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem),
        (status = 408, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem),
        (status = 422, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn put_part(mut call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    check_plain(&call.headers)?;
    let (id, number) = (call.upload_id()?, call.part_number()?);
    let length = content_length(&call.headers)?;
    let digests = digests::announced(&call)?;
    let (uploads, body) = (call.app.service.uploads.clone(), call.receive()?);
    // The request's head takes a buffer of the connection: it goes while the body comes.
    drop(call);
    let part = uploads.put_part(&grant, id, number, length, digests, body).await?;
    let part = Part {
        part: part.number,
        size: part.size,
        crc32: hex(&part.crc32.to_be_bytes()),
        blake3: hex(&part.blake3),
    };
    Ok(render::json(StatusCode::OK, &part))
}

/// Makes the file of an upload whose parts are all there. Takes the same time whatever the size.
#[utoipa::path(
    post, path = "/v1/uploads/{id}/complete", tag = "uploads", params(("id" = String, Path)), request_body = CompleteUpload,
    responses(
        (status = 201, body = carrack_api::File), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem),
        (status = 412, body = carrack_api::Problem), (status = 422, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn complete(mut call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let id = call.upload_id()?;
    let wished: CompleteUpload = call.json_or_default().await?;
    let digests = call::json_digests(&wished.digest)?;
    let file = call.app.service.uploads.complete(&grant, id, digests).await?;
    // The contract has one answer, replaced or not, so that a repeat cannot differ.
    Ok(stored(&file, Outcome::Created))
}

/// Gives an upload up.
#[utoipa::path(
    delete, path = "/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    call.app.service.uploads.delete(&grant, call.upload_id()?).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}
