"""Creation, with data, of unknown length; expiration; termination."""

import email.utils
import time
from urllib.parse import urlsplit

import wire
from suite import Skip, b64, check, content, expect

OFFSET_TYPE = ("Content-Type", "application/offset+octet-stream")


@check("C1", "POST is 201 with Location", "creation")
def c1(server):
    answer = server.post([("Upload-Length", "3")])
    expect(answer.status == 201, "status", answer)
    expect(server.head(server.locate(answer)).status in (200, 204), "what Location names", answer)


@check("C2", "neither or both of Upload-Length and Upload-Defer-Length is 400", "creation")
def c2(server):
    expect(server.post([]).status == 400, "neither")
    expect(server.post([("Upload-Length", "3"), ("Upload-Defer-Length", "1")]).status == 400, "both")


@check("C3", "Upload-Defer-Length is 1", "creation-defer-length")
def c3(server):
    for value in ("0", "2", "true", "01", "-1"):
        expect(server.post([("Upload-Defer-Length", value)]).status == 400, value)


@check("C4", "more than Tus-Max-Size is 413", "creation")
def c4(server):
    if not server.max_size:
        raise Skip("no Tus-Max-Size")
    for length in (server.max_size + 1, 2**63 - 1):
        expect(server.post([("Upload-Length", str(length))]).status == 413, str(length))


@check("C5", "an upload of 0 bytes is complete at once", "creation")
def c5(server):
    name, metadata = server.named()
    url = server.create(0, metadata=metadata)
    answer = server.head(url)
    expect(answer.get("Upload-Offset") == "0" and answer.get("Upload-Length") == "0", "HEAD", answer)
    server.stored(url, name, b"")


@check("C6", "a length that is said later is said once, and fits", "creation-defer-length")
def c6(server):
    name, metadata = server.named()
    url = server.defer(("Upload-Metadata", metadata))
    expect(server.patch(url, 0, b"abcd").status == 204, "before the length is known")
    expect(server.patch(url, 4, b"", ("Upload-Length", "3")).status == 400, "below the offset")
    expect(server.head(url).get("Upload-Defer-Length") == "1", "still unknown")
    expect(server.patch(url, 4, b"e", ("Upload-Length", "6")).status == 204, "said")
    answer = server.head(url)
    expect(answer.get("Upload-Length") == "6" and answer.get("Upload-Defer-Length") is None, "HEAD", answer)
    expect(server.patch(url, 5, b"f", ("Upload-Length", "7")).status == 400, "changed")
    expect(server.offset(url) == 5, "untouched")
    if server.max_size:
        other = server.defer()
        answer = server.patch(other, 0, b"", ("Upload-Length", str(server.max_size + 1)))
        expect(answer.status in (400, 413), "above Tus-Max-Size", answer)
    expect(server.patch(url, 5, b"f").status == 204, "the last byte")
    server.stored(url, name, b"abcdef")


@check("C7", "metadata that is none is 400, and never becomes a header", "creation")
def c7(server):
    for bad in (",", f"a {b64('x')},", f"a {b64('x')},a {b64('y')}", "a !!!", "a b c", f"my key {b64('x')}", f" ,a {b64('x')}"):
        answer = server.post([("Upload-Length", "3"), ("Upload-Metadata", bad)])
        expect(answer.status == 400, repr(bad), answer)
    evil = "a\r\nX-Injected: yes\r\n\r\nb"
    metadata = f"filename {b64('c7.txt')},filetype {b64(evil)},note {b64(evil)}"
    answer = server.post([("Upload-Length", "0"), ("Upload-Metadata", metadata)])
    expect(answer.get("X-Injected") is None, "injected", answer)
    if answer.status == 201:
        expect(server.head(server.locate(answer)).get("X-Injected") is None, "injected")


@check("W1", "data in POST counts as such only with its media type", "creation-with-upload")
def w1(server):
    name, metadata = server.named()
    answer = server.post([("Upload-Length", "5"), ("Upload-Metadata", metadata), OFFSET_TYPE], b"abc")
    expect(answer.status == 201 and answer.get("Upload-Offset") == "3", "with it", answer)
    url = server.locate(answer)
    expect(server.offset(url) == 3, "HEAD")
    expect(server.patch(url, 3, b"de").status == 204, "the rest")
    server.stored(url, name, b"abcde")
    answer = server.post([("Upload-Length", "3"), ("Content-Type", "text/plain")], b"abc")
    if answer.status == 201:
        expect(server.offset(server.locate(answer)) == 0, "without it", answer)
    else:
        expect(answer.status in (400, 415), "without it", answer)
    name, metadata = server.named()
    answer = server.post([("Upload-Length", "3"), ("Upload-Metadata", metadata), OFFSET_TYPE], b"abc")
    expect(answer.status == 201 and answer.get("Upload-Offset") == "3", "everything", answer)
    server.stored(server.locate(answer), name, b"abc")


@check("W2", "a POST that is cut leaves nothing broken behind", "creation-with-upload")
def w2(server):
    name, metadata = server.named()
    with wire.Connection(server.url) as connection:
        fields = [("Tus-Resumable", "1.0.0"), ("Upload-Length", "1000000"), ("Upload-Metadata", metadata), OFFSET_TYPE]
        fields += [("Content-Length", "1000000"), *server.headers]
        connection.send_head("POST", urlsplit(server.url).path, fields)
        connection.send(content(300_000))
    if server.fetch:
        where = server.fetch.replace("{filename}", name)
        expect(server.raw("GET", where, []).status == 404, "a broken file is visible")
    # Whether the upload is there can be seen by its URL alone, which was in the answer that nobody got.
    expect(server.create(1), "the server still works")


@check("W3", "with Expect: 100-continue a refusal comes before 100", "creation-with-upload")
def w3(server):
    if not server.max_size:
        raise Skip("no Tus-Max-Size")
    with wire.Connection(server.url) as connection:
        length = str(server.max_size + 1)
        fields = [("Tus-Resumable", "1.0.0"), ("Upload-Length", length), OFFSET_TYPE, ("Content-Length", length)]
        connection.send_head("POST", urlsplit(server.url).path, [*fields, ("Expect", "100-continue"), *server.headers])
        answer = connection.receive("POST", interim=True)
        expect(answer.status == 413, "status", answer)


def expires(answer):
    text = answer.get("Upload-Expires")
    expect(text, "no Upload-Expires", answer)
    expect(text.endswith(" GMT") and len(text) == 29, "not an IMF-fixdate", answer)
    return email.utils.parsedate_to_datetime(text).timestamp()


@check("E1", "POST and PATCH of an unfinished upload say when it expires", "expiration")
def e1(server):
    answer = server.post([("Upload-Length", "3")])
    expect(expires(answer) > time.time() - 60, "in the past", answer)
    answer = server.patch(server.locate(answer), 0, b"a")
    expect(expires(answer) > time.time() - 60, "in the past", answer)


@check("E2", "an expired upload is 410 or 404", "expiration")
def e2(server):
    if not server.expires_within:
        raise Skip("needs a server that expires uploads soon: --expires-within SECONDS")
    url = server.create(3)
    expect(server.patch(url, 0, b"a").status == 204, "before")
    time.sleep(server.expires_within)
    expect(server.patch(url, 1, b"b").status in (404, 410), "PATCH")
    answer = server.head(url)
    expect(answer.status in (404, 410) and answer.get("Upload-Offset") is None, "HEAD", answer)


@check("E3", "a complete upload does not expire", "expiration")
def e3(server):
    name, metadata = server.named()
    url = server.create(3, metadata=metadata)
    answer = server.patch(url, 0, b"abc")
    expect(answer.status == 204 and answer.get("Upload-Expires") is None, "PATCH", answer)
    answer = server.head(url)
    expect(answer.get("Upload-Expires") is None, "HEAD", answer)
    if server.fetch and server.expires_within:
        time.sleep(server.expires_within)
        server.stored(url, name, b"abc")


@check("E4", "pages may see Upload-Expires", "expiration")
def e4(server):
    answer = server.raw("POST", server.url, [("Tus-Resumable", "1.0.0"), ("Upload-Length", "3"), ("Origin", "https://app.example")])
    exposed = (answer.get("Access-Control-Expose-Headers") or "").lower()
    expect("upload-expires" in exposed, "Access-Control-Expose-Headers", answer)


@check("X1", "DELETE is 204, then the upload is gone", "termination")
def x1(server):
    url = server.create(5)
    server.patch(url, 0, b"abc")
    expect(server.tus("DELETE", url).status == 204, "DELETE")
    for answer in (server.head(url), server.patch(url, 3, b"de"), server.tus("DELETE", url)):
        expect(answer.status in (404, 410), "afterwards", answer)


@check("X2", "DELETE stops a PATCH that runs", "termination")
def x2(server):
    url = server.create(1_000_000)
    with server.begin_patch(url, 0, 1_000_000) as connection:
        connection.send(content(400_000))
        time.sleep(0.2)
        begun = time.monotonic()
        answer = server.tus("DELETE", url)
        expect(answer.status == 204, "DELETE", answer)
        expect(time.monotonic() - begun < 5, "DELETE took too long")
        try:
            answer = connection.receive("PATCH")
            expect(answer.status >= 400, "the PATCH", answer)
        except (ConnectionError, OSError):
            pass
    expect(server.head(url).status in (404, 410), "it is gone")
