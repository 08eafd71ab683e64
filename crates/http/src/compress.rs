//! JSON, metrics and documentation, compressed as the client likes it (RFC 9110 §12.5.3). File content never is: its
//! ranges, digests and ETags are those of the bytes that were stored.

use crate::body::ResponseBody;
use crate::render::Response;
use bytes::Bytes;
use carrack_domain::{Error, Result};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Smaller bodies fit into a packet or two either way.
const WORTH_BYTES: usize = 1 << 10;
/// Larger ones are compressed where nobody waits for a thread.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

/// Of those a client likes equally, the first: zstd takes the least time for what is made anew for each request.
const FRESH: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
/// Brotli is the smallest for what is compressed once.
const KEPT: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// How much work is put into a body.
#[derive(Debug, Clone, Copy)]
enum Effort {
    /// It is sent once.
    Little,
    /// It is kept and sent again and again.
    Much,
}

/// A fresh answer in a coding that the request accepts, if it is worth it.
pub(crate) async fn fresh(request: &HeaderMap, mut response: Response) -> Result<Response> {
    vary(&mut response);
    let Some((coding, bytes)) = wanted(request, FRESH, &response) else { return Ok(response) };
    if bytes.len() <= INLINE_BYTES_MAX {
        return Ok(coded(response, coding, compress(coding, Effort::Little, &bytes)?));
    }
    let bytes = aside(coding, Effort::Little, bytes).await?;
    Ok(coded(response, coding, bytes))
}

/// Compressed bodies that stay the same as long as the process lives. Bounded, as each is of a file in the binary.
static PRESSED: LazyLock<Mutex<HashMap<(String, Coding), Bytes>>> = LazyLock::new(Mutex::default);

/// The same for an answer whose body is always the same under its `name`: compressed once.
pub(crate) async fn kept(name: &str, request: &HeaderMap, mut response: Response) -> Result<Response> {
    vary(&mut response);
    let Some((coding, bytes)) = wanted(request, KEPT, &response) else { return Ok(response) };
    let key = (name.to_owned(), coding);
    let known = PRESSED.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let pressed = match known {
        Some(pressed) => pressed,
        None => {
            let pressed = aside(coding, Effort::Much, bytes).await?;
            PRESSED.lock().unwrap_or_else(PoisonError::into_inner).insert(key, pressed.clone());
            pressed
        }
    };
    Ok(coded(response, coding, pressed))
}

/// The coding to use and what to code, unless it is to be sent as it is.
fn wanted(request: &HeaderMap, order: [Coding; 3], response: &Response) -> Option<(Coding, Bytes)> {
    let bytes = response.body().as_bytes().filter(|bytes| bytes.len() >= WORTH_BYTES)?.clone();
    Some((negotiate(request, order)?, bytes))
}

/// Compresses on a thread that may be busy for long.
async fn aside(coding: Coding, effort: Effort, bytes: Bytes) -> Result<Bytes> {
    let work = tokio::task::spawn_blocking(move || compress(coding, effort, &bytes));
    work.await.map_err(|error| Error::internal("compress an answer", error))?
}

fn coded(mut response: Response, coding: Coding, bytes: Bytes) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    *response.body_mut() = ResponseBody::bytes(bytes);
    response
}

/// Says that the answer depends on `Accept-Encoding`, also where it is sent as it is.
fn vary(response: &mut Response) {
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// Weights of a request's codings in thousandths; the last word on one counts.
#[derive(Default)]
struct Weights {
    zstd: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    fn of(request: &HeaderMap) -> Weights {
        let mut weights = Weights::default();
        let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let (name, parameter) = item.split_once(';').unwrap_or((item, ""));
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "zstd" => &mut weights.zstd,
                "br" => &mut weights.brotli,
                "gzip" | "x-gzip" => &mut weights.gzip,
                "identity" => &mut weights.identity,
                "*" => &mut weights.any,
                _ => continue,
            };
            *place = Some(weight(parameter));
        }
        weights
    }

    fn coding(&self, coding: Coding) -> u16 {
        let own = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        own.or(self.any).unwrap_or(0)
    }
}

/// The coding that a request likes best, in the order given where it does not mind; `None` for the bytes as they are.
fn negotiate(request: &HeaderMap, order: [Coding; 3]) -> Option<Coding> {
    let weights = Weights::of(request);
    // Not named, the bytes as they are come last; a client that prefers them says so.
    let plain = weights.identity.unwrap_or(0);
    let best = order.into_iter().rev().max_by_key(|coding| weights.coding(*coding))?;
    let weight = weights.coding(best);
    (weight > 0 && weight >= plain).then_some(best)
}

/// A weight such as `q=0.5` in thousandths; 1 without one, 0 for what is none, so that nothing unasked-for is sent.
fn weight(parameter: &str) -> u16 {
    const ONE: u16 = 1000;
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return ONE;
    }
    let value = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let parsed = value.and_then(|(_, value)| value.trim().parse::<f32>().ok());
    parsed.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |weight| (weight * f32::from(ONE)) as u16)
}

fn compress(coding: Coding, effort: Effort, bytes: &[u8]) -> Result<Bytes> {
    let result = match coding {
        Coding::Zstd => zstd::bulk::compress(bytes, effort.pick(3, 15)),
        Coding::Brotli => brotli_bytes(bytes, effort.pick(4, 9)),
        Coding::Gzip => gzip_bytes(bytes, effort.pick(5, 9)),
    };
    result.map(Bytes::from).map_err(|error| Error::internal("compress an answer", error))
}

impl Effort {
    /// The level of a coding: where more work stops to pay, or where it still does.
    fn pick<T>(self, little: T, much: T) -> T {
        match self {
            Effort::Little => little,
            Effort::Much => much,
        }
    }
}

fn brotli_bytes(bytes: &[u8], quality: u32) -> io::Result<Vec<u8>> {
    const BUFFER_BYTES: usize = 4 << 10;
    /// Bits of the window: 4 MiB, more than any body here has.
    const WINDOW_BITS: u32 = 22;
    let mut writer = brotli::CompressorWriter::new(Vec::new(), BUFFER_BYTES, quality, WINDOW_BITS);
    writer.write_all(bytes)?;
    // Which ends the stream, too.
    Ok(writer.into_inner())
}

fn gzip_bytes(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    writer.write_all(bytes)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for value in accept.split('|') {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        negotiate(&headers, FRESH).map(Coding::name)
    }

    #[test]
    fn what_the_client_likes_best() {
        let cases = [
            ("gzip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", Some("br")),
            ("gzip|br;q=0.9", Some("gzip")),
            ("GZIP ; Q=0.001", Some("gzip")),
            ("*", Some("zstd")),
            ("zstd;q=0, *", Some("br")),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip;q=0.0000", None),
            ("gzip;q=high", None),
            ("gzip;q=2", None),
            ("gzip;level=9", None),
            ("deflate, compress", None),
            ("", None),
        ];
        for (accept, expected) in cases {
            assert_eq!(chosen(accept), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), FRESH), None);
    }
}
