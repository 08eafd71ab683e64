//! S3's XML, as far as it is read and written here.

use super::fault::Fault;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;

/// An `<Error>`, which may also come inside a 200.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

/// Of `CreateMultipartUpload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Initiated {
    pub(super) upload_id: String,
}

/// Of `CompleteMultipartUpload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Completed {
    #[serde(rename = "ETag")]
    pub(super) e_tag: String,
}

/// Of `ListParts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Parts {
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_part_number_marker: Option<String>,
    #[serde(default, rename = "Part")]
    pub(super) parts: Vec<Part>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub(super) part_number: u64,
    #[serde(rename = "ETag")]
    pub(super) e_tag: String,
    pub(super) size: u64,
    #[serde(rename = "ChecksumCRC32")]
    pub(super) checksum_crc32: Option<String>,
}

/// Of `ListObjectsV2`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Objects {
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
    #[serde(default)]
    pub(super) contents: Vec<Object>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) last_modified: String,
}

/// Of `ListMultipartUploads`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Uploads {
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    pub(super) uploads: Vec<Upload>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: String,
}

/// Reads an answer. An `<Error>` in its place is the refusal that it is, whatever the status was.
pub(super) fn read<T: DeserializeOwned>(status: u16, text: &str) -> Result<T, Fault> {
    if is_error(text) {
        return Err(refused(status, text));
    }
    quick_xml::de::from_str(text).map_err(|error| Fault::Broken(error.to_string()))
}

/// Whether the outermost element is an `<Error>`.
fn is_error(text: &str) -> bool {
    let text = text.trim_start();
    let body = if text.starts_with("<?") { text.split_once("?>").map_or("", |(_, rest)| rest) } else { text };
    body.trim_start().starts_with("<Error")
}

/// The refusal in a body, which may be empty.
pub(super) fn refused(status: u16, text: &str) -> Fault {
    // A status without words is told by itself.
    let Refusal { code, message } = quick_xml::de::from_str(text).unwrap_or_default();
    // An error inside a 200 is a failure of theirs, unless it says otherwise.
    let status = if status < 300 {
        if code == "InternalError" || code.is_empty() { 500 } else { 400 }
    } else {
        status
    };
    Fault::Refused { status, code, message }
}

/// The body of `CompleteMultipartUpload`.
pub(super) fn complete(parts: &[Part]) -> String {
    let mut text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for part in parts {
        let checksum = part.checksum_crc32.as_ref();
        let checksum =
            checksum.map(|crc32| format!("<ChecksumCRC32>{crc32}</ChecksumCRC32>")).unwrap_or_default();
        // Writing to a string does not fail.
        let _written = write!(
            text,
            "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>{checksum}</Part>",
            part.part_number,
            part.e_tag.replace('"', "&quot;")
        );
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let text = "<?xml version=\"1.0\"?><ListPartsResult xmlns=\"x\"><IsTruncated>true</IsTruncated>\
                    <NextPartNumberMarker>2</NextPartNumberMarker><Part><PartNumber>2</PartNumber><ETag>\"e\"</ETag>\
                    <Size>7</Size></Part></ListPartsResult>";
        let parts: Parts = read(200, text).unwrap();
        assert!(parts.is_truncated && parts.next_part_number_marker.as_deref() == Some("2"));
        assert_eq!((parts.parts[0].part_number, parts.parts[0].size), (2, 7));
        let none: Objects = read(200, "<ListBucketResult></ListBucketResult>").unwrap();
        assert!(none.contents.is_empty());
    }

    #[test]
    fn errors_inside_a_200_are_errors() {
        let text = "<?xml version=\"1.0\"?>\n  <Error><Code>InternalError</Code><Message>m</Message></Error>";
        let fault = read::<Completed>(200, text).unwrap_err();
        assert!(fault.is_passing(), "{fault}");
        assert!(read::<Completed>(200, "   ").is_err());
        assert!(refused(404, "").is_absent());
    }
}
