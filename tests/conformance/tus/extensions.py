"""Checksums, concatenation, and what browsers need."""

import hashlib
import time
import zlib

import wire
from suite import Skip, b64, check, content, digest, expect

OFFSET_TYPE = ("Content-Type", "application/offset+octet-stream")


def checksum(algorithm, data):
    if algorithm == "crc32":
        return f"crc32 {b64(zlib.crc32(data).to_bytes(4, 'big'))}"
    return digest(algorithm, data)


@check("K1", "a body with its checksum is stored, for every algorithm announced", "checksum")
def k1(server):
    for algorithm in server.algorithms:
        if algorithm != "crc32" and algorithm not in hashlib.algorithms_available:
            continue
        name, metadata = server.named()
        data = content(10_000)
        url = server.create(len(data), metadata=metadata)
        for at in (0, 5000):
            part = data[at : at + 5000]
            answer = server.patch(url, at, part, ("Upload-Checksum", checksum(algorithm, part)))
            expect(answer.status == 204, algorithm, answer)
        server.stored(url, name, data)


@check("K2", "another checksum is 460, and the bytes are discarded", "checksum")
def k2(server):
    name, metadata = server.named()
    url = server.create(5, metadata=metadata)
    for algorithm in server.algorithms:
        if algorithm != "crc32" and algorithm not in hashlib.algorithms_available:
            continue
        answer = server.patch(url, 0, b"abc", ("Upload-Checksum", checksum(algorithm, b"abd")))
        expect(answer.status == 460, algorithm, answer)
        expect(server.offset(url) == 0, algorithm)
    expect(server.patch(url, 0, b"abcde", ("Upload-Checksum", checksum("sha1", b"abcde"))).status == 204, "then right")
    server.stored(url, name, b"abcde")


@check("K3", "an unknown algorithm, or a digest that is none, is 400", "checksum")
def k3(server):
    url = server.create(5)
    for bad in (f"rot13 {b64('abc')}", "sha1", "sha1 !!!", f"sha1 {b64('short')}", ""):
        answer = server.patch(url, 0, b"abc", ("Upload-Checksum", bad))
        expect(answer.status == 400, repr(bad), answer)
    expect(server.offset(url) == 0, "untouched")


@check("K4", "a body with a checksum that is cut is discarded", "checksum")
def k4(server):
    data = content(1_000_000)
    url = server.create(len(data))
    with server.begin_patch(url, 0, len(data), ("Upload-Checksum", checksum("sha1", data))) as connection:
        connection.send(data[:400_000])
        time.sleep(0.2)
    time.sleep(0.5)
    expect(server.offset(url) == 0, "bytes were kept")
    expect(server.patch(url, 0, data, ("Upload-Checksum", checksum("sha1", data))).status == 204, "again")


@check("K5", "a checksum after the body is really read", "checksum-trailer")
def k5(server):
    name, metadata = server.named()
    data = content(5000)
    url = server.create(len(data), metadata=metadata)
    announced = ("Trailer", "Upload-Checksum")
    wrong = [("Upload-Checksum", checksum("sha1", b"other"))]
    answer = server.patch(url, 0, data, announced, chunked=True, trailers=wrong)
    expect(answer.status == 460, "wrong", answer)
    answer = server.patch(url, 0, data, announced, chunked=True)
    expect(answer.status in (400, 460), "announced, and not there", answer)
    answer = server.patch(url, 0, data, announced, chunked=True, trailers=[("Upload-Checksum", "rot13 AAAA")])
    expect(answer.status == 400, "unknown", answer)
    expect(server.offset(url) == 0, "untouched")
    right = [("Upload-Checksum", checksum("sha1", data))]
    expect(server.patch(url, 0, data, announced, chunked=True, trailers=right).status == 204, "right")
    server.stored(url, name, data)


@check("K6", "POST with data checks it too", "checksum")
def k6(server):
    if "creation-with-upload" not in server.extensions:
        raise Skip("no creation-with-upload")
    name, metadata = server.named()
    fields = [("Upload-Length", "3"), ("Upload-Metadata", metadata), OFFSET_TYPE]
    answer = server.post([*fields, ("Upload-Checksum", checksum("sha1", b"abd"))], b"abc")
    expect(answer.status == 460, "wrong", answer)
    answer = server.post([*fields, ("Upload-Checksum", checksum("sha1", b"abc"))], b"abc")
    expect(answer.status == 201 and answer.get("Upload-Offset") == "3", "right", answer)
    server.stored(server.locate(answer), name, b"abc")


def partial(server, data, *fields):
    url = server.create(len(data), ("Upload-Concat", "partial"), *fields)
    if data:
        expect(server.patch(url, 0, data).status == 204, "a partial upload")
    return url


def final(server, urls, *fields):
    return server.post([("Upload-Concat", "final;" + " ".join(urls)), *fields])


@check("N1", "a partial upload is one like any other", "concatenation")
def n1(server):
    url = server.create(5, ("Upload-Concat", "partial"))
    expect(server.patch(url, 0, b"abc").status == 204, "PATCH")
    answer = server.head(url)
    expect(answer.get("Upload-Offset") == "3" and answer.get("Upload-Length") == "5", "HEAD", answer)
    expect(answer.get("Upload-Concat") == "partial", "HEAD", answer)


@check("N2", "absolute and relative URLs are joined in order, the same twice too", "concatenation")
def n2(server):
    one, two = content(2_000_000), content(1001)
    for shape in (lambda url: url, lambda url: "/" + url.split("/", 3)[3]):
        name, metadata = server.named()
        urls = [shape(partial(server, one)), shape(partial(server, two))]
        answer = final(server, [urls[1], urls[0]], ("Upload-Metadata", metadata))
        expect(answer.status == 201, str(urls), answer)
        server.stored(server.locate(answer), name, two + one)
    name, metadata = server.named()
    urls = [partial(server, one), partial(server, two)]
    answer = final(server, [urls[0], urls[1], urls[0]], ("Upload-Metadata", metadata))
    expect(answer.status == 201, "the same twice", answer)
    server.stored(server.locate(answer), name, one + two + one)


@check("N3", "Upload-Length of a final upload is 400", "concatenation")
def n3(server):
    url = partial(server, b"abc")
    expect(final(server, [url], ("Upload-Length", "3")).status == 400, "status")


@check("N4", "what cannot be joined is refused", "concatenation")
def n4(server):
    plain = server.create(3)
    server.patch(plain, 0, b"abc")
    unknown = f"{server.url.rstrip('/')}/00000000000000000000000000000000"
    good = partial(server, b"abc")
    for urls in ([plain], [good, plain], [unknown], ["nonsense"], []):
        answer = final(server, urls)
        expect(400 <= answer.status < 500, str(urls), answer)
    unfinished = server.create(3, ("Upload-Concat", "partial"))
    answer = final(server, [unfinished])
    if "concatenation-unfinished" not in server.extensions:
        expect(400 <= answer.status < 500, "unfinished", answer)


@check("N4u", "a final upload of unfinished ones is complete when they are", "concatenation-unfinished")
def n4u(server):
    name, metadata = server.named()
    urls = [server.create(3, ("Upload-Concat", "partial")) for _ in range(2)]
    answer = final(server, urls, ("Upload-Metadata", metadata))
    expect(answer.status == 201, "POST", answer)
    url = server.locate(answer)
    answer = server.head(url)
    expect(answer.status in (200, 204) and answer.get("Upload-Offset") is None, "before", answer)
    expect(server.patch(urls[1], 0, b"def").status == 204, "the second first")
    expect(server.head(url).get("Upload-Offset") is None, "still before")
    expect(server.patch(urls[0], 0, b"abc").status == 204, "the first")
    answer = server.head(url)
    expect(answer.get("Upload-Offset") == "6" and answer.get("Upload-Length") == "6", "after", answer)
    server.stored(url, name, b"abcdef")


@check("N5", "PATCH of a final upload is 403", "concatenation")
def n5(server):
    url = server.locate(final(server, [partial(server, b"abc")]))
    expect(server.patch(url, 3, b"").status == 403, "at the end")
    expect(server.patch(url, 0, b"abc").status == 403, "at 0")


@check("N6", "HEAD of a finished final upload says the sum", "concatenation")
def n6(server):
    url = server.locate(final(server, [partial(server, b"abc"), partial(server, b"de")]))
    answer = server.head(url)
    expect(answer.get("Upload-Offset") == "5" and answer.get("Upload-Length") == "5", "HEAD", answer)


@check("N7", "the metadata of partial uploads is not inherited", "concatenation")
def n7(server):
    answer = final(server, [partial(server, b"abc", ("X-Unused", "1"))])
    found = server.head(server.locate(answer))
    expect(found.get("Upload-Metadata") is None, "HEAD", found)


@check("N8", "a partial upload does not become a file", "concatenation")
def n8(server):
    if not server.fetch:
        raise Skip("needs --fetch, to see which files there are")
    name, metadata = server.named()
    fields = [("Upload-Length", "3"), ("Upload-Concat", "partial"), ("Upload-Metadata", metadata)]
    url = server.locate(server.post(fields))
    expect(server.patch(url, 0, b"abc").status == 204, "PATCH")
    answer = server.raw("GET", server.fetch.replace("{filename}", name), [])
    expect(answer.status == 404, "it is visible", answer)


@check("N9", "somebody else's uploads are not joined", "concatenation")
def n9(server):
    if not server.other_headers:
        raise Skip("needs somebody else's credentials: --other-header")
    url = partial(server, b"abc")
    mine, server.headers = server.headers, server.other_headers
    try:
        answer = final(server, [url])
        expect(400 <= answer.status < 500, "status", answer)
    finally:
        server.headers = mine


@check("N10", "the same final POST again makes no second upload", "concatenation")
def n10(server):
    name, metadata = server.named()
    urls = [partial(server, b"abc"), partial(server, b"de")]
    answers = [final(server, urls, ("Upload-Metadata", metadata)) for _ in range(3)]
    expect(all(answer.status == 201 for answer in answers), "status", answers)
    expect(len({server.locate(answer) for answer in answers}) == 1, "Location", answers)
    server.stored(server.locate(answers[0]), name, b"abcde")


ORIGIN = ("Origin", "https://app.example")


def preflight(server, url, method, fields):
    asked = [ORIGIN, ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", fields)]
    return wire.request(url, "OPTIONS", asked)


def listed(answer, name):
    return {item.strip().lower() for item in (answer.get(name) or "").split(",")}


@check("B1", "a preflight without credentials is answered, and may be kept")
def b1(server):
    for url, method in ((server.url, "POST"), (f"{server.url.rstrip('/')}/x", "PATCH")):
        answer = preflight(server, url, method, "tus-resumable,upload-offset")
        expect(200 <= answer.status < 300, method, answer)
        expect(answer.get("Access-Control-Allow-Origin") in ("*", ORIGIN[1]), "origin", answer)
        expect(int(answer.get("Access-Control-Max-Age") or 0) > 0, "Access-Control-Max-Age", answer)


@check("B2", "methods and headers that clients use are let through")
def b2(server):
    answer = preflight(server, server.url, "POST", "authorization")
    methods = {"post", "patch", "head", "delete", "get", "options"}
    expect(methods <= listed(answer, "Access-Control-Allow-Methods"), "methods", answer)
    fields = {
        "authorization", "content-type", "tus-resumable", "upload-length", "upload-offset", "upload-metadata",
        "upload-defer-length", "upload-concat", "upload-checksum", "x-http-method-override", "x-request-id",
        "x-requested-with",
    }  # fmt: skip
    missing = fields - listed(answer, "Access-Control-Allow-Headers")
    expect(not missing, f"headers {missing}", answer)


@check("B3", "pages may see what they need")
def b3(server):
    answer = server.post([("Upload-Length", "3"), ORIGIN])
    fields = {"location", "upload-offset", "upload-length", "upload-metadata", "tus-resumable", "tus-version"}
    fields |= {"tus-extension", "tus-max-size", "retry-after"}
    if "expiration" in server.extensions:
        fields.add("upload-expires")
    missing = fields - listed(answer, "Access-Control-Expose-Headers")
    expect(not missing, f"headers {missing}", answer)
    expect(answer.get("Access-Control-Allow-Origin") in ("*", ORIGIN[1]), "origin", answer)


@check("B4", "errors may be seen too")
def b4(server):
    url = server.create(3)
    answers = [
        server.post([ORIGIN]),
        server.patch(url, 2, b"x", ORIGIN),
        server.raw("PATCH", url, [ORIGIN], b"x"),
        server.tus("HEAD", f"{server.url.rstrip('/')}/nonsense", [ORIGIN]),
    ]
    if server.headers:
        answers.append(wire.request(server.url, "POST", [("Tus-Resumable", "1.0.0"), ORIGIN]))
    for answer in answers:
        expect(answer.status >= 400, "an error was expected", answer)
        expect(answer.get("Access-Control-Allow-Origin") in ("*", ORIGIN[1]), "origin", answer)
