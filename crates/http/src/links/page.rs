//! What a browser is shown of a link: a page that works without scripts.

use super::discreet;
use crate::render::{self, Response};
use carrack_domain::link::Link;
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};

/// Nothing but what stands in the page itself.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:10vh auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}h1{font-size:1.3rem;overflow-wrap:anywhere}\
input,button{font:inherit;padding:.5rem .8rem;border:1px solid #595959;border-radius:.3rem}\
button{background:#0b4f8a;color:#fff;border-color:#0b4f8a}.wrong{color:#a40000}\
@media(prefers-color-scheme:dark){body{color:#f0f0f0;background:#161616}input{background:#222;color:#f0f0f0}\
.wrong{color:#ff9b9b}}";

/// A button that downloads.
pub(super) fn offer(link: &Link) -> Response {
    let left = link.max_downloads.map_or(0, |most| most.saturating_sub(link.uses));
    let left = match left {
        1 => "This link is good for one download.".to_owned(),
        left => format!("This link is good for {left} downloads more."),
    };
    let body = format!("<p>{left}</p><form method=\"post\"><button>Download</button></form>");
    page(StatusCode::OK, link, false, &body)
}

/// A form that asks for the password; `wrong` when the one that was given is not it.
pub(super) fn ask(link: &Link, wrong: bool) -> Response {
    let (status, said) = if wrong {
        let said = "<p class=\"wrong\" role=\"alert\" id=\"wrong\">This is not the password.</p>";
        (StatusCode::FORBIDDEN, said)
    } else {
        (StatusCode::OK, "")
    };
    let described = if wrong { " aria-invalid=\"true\" aria-describedby=\"wrong\"" } else { "" };
    let body = format!(
        "{said}<form method=\"post\"><p><label for=\"password\">Password</label><br>\
         <input type=\"password\" id=\"password\" name=\"password\" required autofocus autocomplete=\"off\"{described}></p>\
         <button>Continue</button></form>"
    );
    page(status, link, true, &body)
}

fn page(status: StatusCode, link: &Link, locked: bool, body: &str) -> Response {
    // Before the password is given not even the name is told.
    let name = link.filename.as_deref().unwrap_or(link.target.file_name());
    let title = if locked { "A file for you".to_owned() } else { escaped(name) };
    let size = if locked { String::new() } else { format!("<p>{}</p>", readable(link.target.size())) };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{size}{body}</main></body></html>"
    );
    let mut response = render::bytes(status, "text/html; charset=utf-8", html);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    discreet(&mut response);
    response
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A size for people.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_sizes_are_readable() {
        assert_eq!(escaped("<b>&\"'x"), "&lt;b&gt;&amp;&quot;&#39;x");
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")] {
            assert_eq!(readable(bytes), text);
        }
    }
}
