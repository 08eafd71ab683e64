//! What is tried before the first request: whether the bucket is there and ours, and what this S3 can do.

use super::budget::Budget;
use super::client::{Body, Call};
use super::fault::{Fault, error};
use super::stage::base64;
use super::{
    Client, Credentials, FACTS_MAX, Inner, MEMORY_BYTES_MIN, PART_BYTES_MAX, PARTS_IN_MEMORY, S3Options,
    S3Store, STAGES_MAX, Target, xml,
};
use bytes::Bytes;
use carrack_domain::{Clock, Entropy, Result};
use quick_cache::sync::Cache;
use reqwest::Method;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the probe writes, and deletes again.
const CONTENT: &[u8] = b"Carrack was here to see what this S3 can do.\n";
/// How long readiness waits for S3.
const CHECK: Duration = Duration::from_millis(450);

impl S3Store {
    /// Opens the store and tries what it needs. The error is a sentence for the operator, with no secret in it.
    pub async fn open(
        options: S3Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> std::result::Result<S3Store, String> {
        let S3Options {
            endpoint,
            public_endpoint,
            region,
            bucket,
            prefix,
            access_key_id,
            secret_access_key,
            path_style,
            memory_bytes,
            direct_parts,
            direct_downloads,
        } = options;
        let place = format!("the bucket {bucket:?} at {endpoint}");
        let credentials = Credentials { id: access_key_id, secret: secret_access_key, region };
        let target = Target { endpoint, public_endpoint, bucket, path_style, prefix };
        let client = Client::new(target, credentials, clock.clone())?;
        let memory_bytes = memory_bytes.max(MEMORY_BYTES_MIN);
        let mut inner = Inner {
            client,
            clock,
            entropy,
            budget: Budget::new(memory_bytes),
            part_max: (memory_bytes / PARTS_IN_MEMORY).min(PART_BYTES_MAX),
            direct_parts,
            direct_downloads,
            checksums: false,
            full_object: false,
            stages: Cache::new(STAGES_MAX),
            brief: Mutex::default(),
            facts: Cache::new(FACTS_MAX),
            readings: Mutex::default(),
        };
        let refused = |doing: &str, fault: &Fault| {
            let remedy = fault.remedy().map(|remedy| format!(": {remedy}")).unwrap_or_default();
            format!("cannot use {place}: {doing} failed with {fault}{remedy}")
        };
        inner.probe_access().await.map_err(|(doing, fault)| refused(doing, &fault))?;
        (inner.checksums, inner.full_object) =
            inner.probe_checksums().await.map_err(|(doing, fault)| refused(doing, &fault))?;
        tracing::info!(
            checksums = inner.checksums,
            full_object = inner.full_object,
            part_bytes_max = inner.part_max,
            "S3 has answered"
        );
        if inner.direct_parts && !inner.checksums {
            tracing::warn!(
                "storage.s3.direct_parts has no effect: this S3 does not keep the CRC-32 of parts, so nobody could tell what came"
            );
        }
        Ok(S3Store(Arc::new(inner)))
    }
}

type Probed<T> = std::result::Result<T, (&'static str, Fault)>;

impl Inner {
    fn probe_key(&self) -> String {
        format!("probe/{:016x}", self.random())
    }

    /// Lists, writes, reads and deletes.
    async fn probe_access(&self) -> Probed<()> {
        let list = Call::new("probe", Method::GET, "")
            .query("list-type", 2)
            .query("max-keys", 1)
            .query("prefix", format!("{}probe/", self.client.prefix()));
        let listed: std::result::Result<xml::Objects, Fault> = self.client.say(&list).await;
        listed.map_err(|fault| ("listing", fault))?;
        let key = self.probe_key();
        let put = Call::new("probe", Method::PUT, key.as_str())
            .header("x-amz-checksum-crc32", base64(crc32fast::hash(CONTENT)))
            .body(Body::blocks(vec![Bytes::from_static(CONTENT)]));
        self.client.call(&put).await.map_err(|fault| ("writing", fault))?;
        let range = format!("bytes=5-{}", CONTENT.len() - 1);
        let read = Call::new("probe", Method::GET, key.as_str()).header("range", range);
        let read = self.client.call(&read).await.map_err(|fault| ("reading", fault))?;
        if read.status != 206 || read.text.as_bytes() != &CONTENT[5..] {
            return Err(("reading", Fault::Lie("it does not give back what was written".to_owned())));
        }
        let delete = Call::new("probe", Method::DELETE, key);
        self.client.call(&delete).await.map_err(|fault| ("deleting", fault))?;
        Ok(())
    }

    /// Whether S3 keeps the CRC-32 of parts, and joins them to that of the whole.
    async fn probe_checksums(&self) -> Probed<(bool, bool)> {
        for (checksums, full_object) in [(true, true), (true, false)] {
            match self.probe_upload(checksums, full_object).await {
                Ok(()) => return Ok((checksums, full_object)),
                Err((doing, fault)) => {
                    tracing::debug!(doing, %fault, full_object, "S3 has no such checksums");
                }
            }
        }
        // Without any: what fails now is not about checksums.
        self.probe_upload(false, false).await.map(|()| (false, false))
    }

    async fn probe_upload(&self, checksums: bool, full_object: bool) -> Probed<()> {
        let crc32 = crc32fast::hash(CONTENT);
        let key = self.probe_key();
        let mut create = Call::new("probe", Method::POST, key.as_str()).query("uploads", "");
        if checksums {
            create = create.header("x-amz-checksum-algorithm", "CRC32");
        }
        if full_object {
            create = create.header("x-amz-checksum-type", "FULL_OBJECT");
        }
        let begun: xml::Initiated =
            self.client.say(&create).await.map_err(|fault| ("beginning a multipart upload", fault))?;
        let upload = begun.upload_id;
        let done = self.probe_parts(&key, &upload, crc32, checksums, full_object).await;
        if done.is_err() {
            let abort = Call::new("probe", Method::DELETE, key.as_str()).query("uploadId", upload);
            if let Err(fault) = self.client.call(&abort).await {
                tracing::debug!(%fault, "a probe is left over");
            }
        }
        self.client
            .call(&Call::new("probe", Method::DELETE, key))
            .await
            .map_err(|fault| ("deleting", fault))?;
        done
    }

    async fn probe_parts(
        &self,
        key: &str,
        upload: &str,
        crc32: u32,
        checksums: bool,
        full_object: bool,
    ) -> Probed<()> {
        let mut put = Call::new("probe", Method::PUT, key).query("partNumber", 7).query("uploadId", upload);
        if checksums {
            put = put.header("x-amz-checksum-crc32", base64(crc32));
        }
        let put = put.body(Body::blocks(vec![Bytes::from_static(CONTENT)]));
        self.client.call(&put).await.map_err(|fault| ("writing a part", fault))?;
        let list = Call::new("probe", Method::GET, key).query("uploadId", upload);
        let listed: xml::Parts = self.client.say(&list).await.map_err(|fault| ("listing parts", fault))?;
        let told = listed.parts.iter().all(|part| part.checksum_crc32.as_deref() == Some(&base64(crc32)));
        if checksums && !told {
            return Err(("listing parts", Fault::Lie("it does not tell their checksums".to_owned())));
        }
        let mut complete = Call::new("probe", Method::POST, key)
            .query("uploadId", upload)
            .body(Body::Text(xml::complete(&listed.parts).into()));
        if full_object {
            complete = complete
                .header("x-amz-checksum-crc32", base64(crc32))
                .header("x-amz-checksum-type", "FULL_OBJECT");
        }
        let completed: std::result::Result<xml::Completed, Fault> = self.client.say(&complete).await;
        completed.map_err(|fault| ("completing a multipart upload", fault))?;
        Ok(())
    }

    /// Whether S3 answers now.
    pub(super) async fn check(&self) -> Result<()> {
        let mut call = Call::new("check", Method::GET, "")
            .query("list-type", 2)
            .query("max-keys", 1)
            .query("prefix", format!("{}probe/", self.client.prefix()));
        call.patience = CHECK;
        let listed: std::result::Result<xml::Objects, Fault> = self.client.say(&call).await;
        listed.map(drop).map_err(|fault| error("check", fault))
    }
}
