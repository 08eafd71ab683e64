//! `/v1/buckets`.

use crate::call::Call;
use crate::compress;
use crate::render::{self, Response};
use carrack_api::{BucketList, PutBucket};
use carrack_domain::access::{ListBuckets, ManageBucket, authorize};
use carrack_domain::file::BucketSettings;
use carrack_domain::{Code, Error, Policy, Result};
use carrack_service::Outcome;
use http::StatusCode;

/// Lists the buckets.
#[utoipa::path(get, path = "/v1/buckets", tag = "buckets", responses((status = 200, body = BucketList)), security(("bearer" = [])))]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<ListBuckets>(&call.principal, ())?;
    let buckets = call.app.service.buckets.list(&grant).await?;
    let list = BucketList { buckets: buckets.iter().map(render::bucket).collect() };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &list)).await
}

fn policy(value: serde_json::Value) -> Result<Policy> {
    let wrong = |problem: String| Error::new(Code::InvalidPolicy, format!("The policy is none: {problem}."));
    let policy: Policy = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    policy.check().map_err(wrong)?;
    Ok(policy)
}

/// Makes a bucket, or sets its quota, retention and policy; what is left out goes back to its default.
#[utoipa::path(
    put, path = "/v1/buckets/{bucket}", tag = "buckets", params(("bucket" = String, Path)), request_body = PutBucket,
    responses(
        (status = 201, body = carrack_api::Bucket), (status = 200, description = "Changed.", body = carrack_api::Bucket),
        (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn put(mut call: Call) -> Result<Response> {
    let grant = authorize::<ManageBucket>(&call.principal, call.bucket()?)?;
    let wished: PutBucket = call.json_or_default().await?;
    let settings = BucketSettings {
        quota_bytes: wished.quota_bytes,
        retention_seconds: wished.retention_seconds,
        policy: wished.policy.map(policy).transpose()?,
    };
    let (bucket, outcome) = call.app.service.buckets.put(&grant, settings).await?;
    let status = match outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Replaced => StatusCode::OK,
    };
    Ok(render::json(status, &render::bucket(&bucket)))
}

/// A bucket's facts.
#[utoipa::path(
    get, path = "/v1/buckets/{bucket}", tag = "buckets", params(("bucket" = String, Path)),
    responses((status = 200, body = carrack_api::Bucket), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let grant = authorize::<ManageBucket>(&call.principal, call.bucket()?)?;
    let bucket = call.app.service.buckets.get(&grant).await?;
    Ok(render::json(StatusCode::OK, &render::bucket(&bucket)))
}

/// Deletes an empty bucket.
#[utoipa::path(
    delete, path = "/v1/buckets/{bucket}", tag = "buckets", params(("bucket" = String, Path)),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    let grant = authorize::<ManageBucket>(&call.principal, call.bucket()?)?;
    call.app.service.buckets.delete(&grant).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}
