"""The core protocol: OPTIONS, every answer, HEAD, PATCH."""

import threading
import time

import wire
from suite import b64, check, content, expect

UNKNOWN = "00000000000000000000000000000000"


@check("O1", "OPTIONS is answered with 200 or 204")
def o1(server):
    answer = server.raw("OPTIONS", server.url, [])
    expect(answer.status in (200, 204), "status", answer)


@check("O2", "OPTIONS names the version")
def o2(server):
    answer = server.raw("OPTIONS", server.url, [])
    expect("1.0.0" in [v.strip() for v in (answer.get("Tus-Version") or "").split(",")], "Tus-Version", answer)


@check("O3", "OPTIONS names known extensions, each once")
def o3(server):
    answer = server.raw("OPTIONS", server.url, [])
    known = {
        "creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "checksum-trailer",
        "termination", "concatenation", "concatenation-unfinished",
    }  # fmt: skip
    names = [e.strip() for e in (answer.get("Tus-Extension") or "creation").split(",")]
    expect(set(names) <= known and len(set(names)) == len(names), "Tus-Extension", answer)


@check("O4", "Tus-Max-Size is a number, if there is one, and holds")
def o4(server):
    answer = server.raw("OPTIONS", server.url, [])
    if limit := answer.get("Tus-Max-Size"):
        expect(limit.isdigit(), "Tus-Max-Size", answer)
        refused = server.post([("Upload-Length", str(int(limit) + 1))])
        expect(refused.status == 413, "one byte more than Tus-Max-Size", refused)


@check("O5", "OPTIONS ignores Tus-Resumable")
def o5(server):
    answer = server.raw("OPTIONS", server.url, [("Tus-Resumable", "0.0.1")])
    expect(answer.status in (200, 204), "status", answer)


@check("O6", "sha1 is among the checksum algorithms", "checksum")
def o6(server):
    expect("sha1" in server.algorithms, f"Tus-Checksum-Algorithm: {server.algorithms}")


@check("G1", "every answer says Tus-Resumable, errors too")
def g1(server):
    url = server.create(3)
    answers = [
        server.post([("Upload-Length", "3")]),
        server.post([]),
        server.head(url),
        server.head(f"{server.url.rstrip('/')}/{UNKNOWN}"),
        server.patch(url, 1, b"x"),
        server.patch(url, 0, b"abc"),
        server.tus("PATCH", url, [("Upload-Offset", "0"), ("Content-Type", "text/plain")], b"x"),
        server.raw("PATCH", url, [("Upload-Offset", "0")], b"x"),
    ]
    for answer in answers:
        expect(answer.get("Tus-Resumable") == "1.0.0", "Tus-Resumable", answer)


@check("G2", "another version is 412 with Tus-Version, and nothing happens")
def g2(server):
    url = server.create(3)
    for version in ([], [("Tus-Resumable", "0.2.2")], [("Tus-Resumable", "2.0.0")]):
        body = [("Content-Type", "application/offset+octet-stream"), ("Upload-Offset", "0")]
        for answer in (
            server.raw("PATCH", url, version + body, b"abc"),
            server.raw("POST", server.url, [*version, ("Upload-Length", "3")]),
            server.raw("DELETE", url, version),
        ):
            expect(answer.status == 412, f"with {version}", answer)
            expect("1.0.0" in (answer.get("Tus-Version") or ""), "Tus-Version", answer)
    expect(server.offset(url) == 0, "the upload is untouched")


@check("G3", "X-HTTP-Method-Override replaces the method")
def g3(server):
    url = server.create(3)
    fields = [("X-HTTP-Method-Override", "PATCH"), ("Upload-Offset", "0")]
    fields.append(("Content-Type", "application/offset+octet-stream"))
    answer = server.tus("POST", url, fields, b"abc")
    expect(answer.status == 204 and answer.get("Upload-Offset") == "3", "as PATCH", answer)
    if "termination" in server.extensions:
        answer = server.tus("POST", url, [("X-HTTP-Method-Override", "DELETE")])
        expect(answer.status == 204, "as DELETE", answer)
        expect(server.head(url).status in (404, 410), "it is gone")


@check("G4", "a chunked PATCH without Content-Length works")
def g4(server):
    name, metadata = server.named()
    data = content(5000)
    url = server.create(len(data), metadata=metadata)
    answer = server.patch(url, 0, data, chunked=True)
    expect(answer.status == 204 and answer.get("Upload-Offset") == "5000", "PATCH", answer)
    server.stored(url, name, data)


@check("G5", "numbers that are none are 400, and change nothing")
def g5(server):
    bad = ["-1", "+1", "1.5", "1e1", "0x1", "abc", "", "9223372036854775808", "99999999999999999999999"]
    for value in bad:
        answer = server.post([("Upload-Length", value)])
        expect(answer.status == 400, f"Upload-Length: {value}", answer)
    expect(server.post([("Upload-Length", "1"), ("Upload-Length", "2")]).status == 400, "two Upload-Length")
    url = server.create(10)
    for value in bad:
        answer = server.patch(url, value, b"x")
        expect(answer.status == 400, f"Upload-Offset: {value}", answer)
    expect(server.patch(url, 0, b"x", ("Upload-Offset", "1")).status == 400, "two Upload-Offset")
    fields = [("Content-Type", "application/offset+octet-stream")]
    expect(server.tus("PATCH", url, fields, b"x").status == 400, "no Upload-Offset")
    expect(server.offset(url) == 0, "the upload is untouched")


@check("H1", "HEAD is answered with 200 or 204")
def h1(server):
    answer = server.head(server.create(3))
    expect(answer.status in (200, 204), "status", answer)


@check("H2", "HEAD always says Upload-Offset, also 0 and after the end")
def h2(server):
    url = server.create(3)
    expect(server.head(url).get("Upload-Offset") == "0", "at the beginning")
    server.patch(url, 0, b"a")
    expect(server.head(url).get("Upload-Offset") == "1", "in the middle")
    server.patch(url, 1, b"bc")
    answer = server.head(url)
    expect(answer.status in (200, 204) and answer.get("Upload-Offset") == "3", "at the end", answer)
    expect(answer.get("Upload-Length") == "3", "at the end", answer)


@check("H3", "HEAD says Upload-Length, or Upload-Defer-Length: 1")
def h3(server):
    answer = server.head(server.create(3))
    expect(answer.get("Upload-Length") == "3" and answer.get("Upload-Defer-Length") is None, "known", answer)
    if "creation-defer-length" in server.extensions:
        answer = server.head(server.defer())
        expect(answer.get("Upload-Length") is None and answer.get("Upload-Defer-Length") == "1", "unknown", answer)


@check("H4", "HEAD is not to be cached")
def h4(server):
    answer = server.head(server.create(3))
    expect("no-store" in (answer.get("Cache-Control") or ""), "Cache-Control", answer)


@check("H5", "Upload-Metadata comes back byte for byte")
def h5(server):
    for metadata in (
        f"zeta {b64('z')},alpha {b64('a')},flag,empty ,filename {b64('h5.txt')}",
        f"filename {b64('ü/日本.txt')},is_confidential",
    ):
        answer = server.head(server.create(3, metadata=metadata))
        expect(answer.get("Upload-Metadata") == metadata.strip(), f"sent {metadata!r}", answer)


@check("H6", "HEAD says Upload-Concat as it was sent", "concatenation")
def h6(server):
    url = server.create(1, ("Upload-Concat", "partial"))
    expect(server.head(url).get("Upload-Concat") == "partial", "partial")
    server.patch(url, 0, b"x")
    answer = server.post([("Upload-Concat", f"final;{url}")])
    expect(answer.status == 201, "final", answer)
    found = server.head(server.locate(answer))
    expect(found.get("Upload-Concat") == f"final;{url}", "final", found)


@check("H7", "HEAD of an unknown upload is 404, 410 or 403, without Upload-Offset")
def h7(server):
    for unknown in (UNKNOWN, "nonsense", "..%2f..%2fetc%2fpasswd"):
        answer = server.head(f"{server.url.rstrip('/')}/{unknown}")
        expect(answer.status in (403, 404, 410), unknown, answer)
        expect(answer.get("Upload-Offset") is None, unknown, answer)


@check("H8", "HEAD has no body, and no Content-Length but 0")
def h8(server):
    url = server.create(1000)
    with wire.Connection(url) as connection:
        target = "/" + url.split("/", 3)[3]
        connection.send_head("HEAD", target, [("Tus-Resumable", "1.0.0"), *server.headers])
        answer = connection.receive("HEAD")
        expect(answer.get("Content-Length") in (None, "0"), "Content-Length", answer)
        expect(connection.silent_for(0.2) and not connection.buffer, "a body")


@check("P1", "PATCH is 204 with the new Upload-Offset")
def p1(server):
    name, metadata = server.named()
    url = server.create(5, metadata=metadata)
    answer = server.patch(url, 0, b"ab")
    expect(answer.status == 204 and answer.get("Upload-Offset") == "2", "first", answer)
    answer = server.patch(url, 2, b"cde")
    expect(answer.status == 204 and answer.get("Upload-Offset") == "5", "last", answer)
    server.stored(url, name, b"abcde")


@check("P2", "PATCH of another media type is 415")
def p2(server):
    url = server.create(5)
    for kind in ([("Content-Type", "application/octet-stream")], [("Content-Type", "text/plain")], []):
        answer = server.tus("PATCH", url, [("Upload-Offset", "0"), *kind], b"ab")
        expect(answer.status == 415, str(kind), answer)
    expect(server.offset(url) == 0, "the upload is untouched")


@check("P3", "another offset is 409, and changes nothing")
def p3(server):
    name, metadata = server.named()
    url = server.create(5, metadata=metadata)
    expect(server.patch(url, 3, b"de").status == 409, "too high")
    expect(server.patch(url, 0, b"abc").status == 204, "right")
    expect(server.patch(url, 0, b"xyz").status == 409, "too low")
    expect(server.patch(url, 4, b"e").status == 409, "too high")
    expect(server.offset(url) == 3, "untouched")
    expect(server.patch(url, 3, b"de").status == 204, "right")
    server.stored(url, name, b"abcde")


@check("P4", "PATCH of an unknown upload is 404")
def p4(server):
    answer = server.patch(f"{server.url.rstrip('/')}/{UNKNOWN}", 0, b"x")
    expect(answer.status in (404, 410, 403), "status", answer)


@check("P5", "what came of a body that was cut is kept, and the rest completes it")
def p5(server):
    name, metadata = server.named()
    data = content(3_000_000)
    url = server.create(len(data), metadata=metadata)
    with server.begin_patch(url, 0, len(data)) as connection:
        connection.send(data[:1_234_567])
    found = []

    def some():
        found.append(server.offset(url))
        return found[-1] > 0

    expect(wire.wait_until(some), f"nothing was kept: {found[-1:]}")
    expect(found[-1] <= 1_234_567, f"more than was sent: {found[-1]}")
    answer = server.patch(url, found[-1], data[found[-1] :])
    expect(answer.status == 204 and answer.get("Upload-Offset") == str(len(data)), "the rest", answer)
    server.stored(url, name, data)


@check("P6", "bytes beyond the length are 413, and are not stored")
def p6(server):
    for chunked in (False, True):
        url = server.create(5)
        answer = server.patch(url, 0, b"abcdefgh", chunked=chunked)
        expect(answer.status in (400, 413), f"chunked: {chunked}", answer)
        expect(server.offset(url) <= 5, "more than the length")


@check("P7", "an empty body at the offset is 204")
def p7(server):
    url = server.create(5)
    for offset, body in ((0, b""), (0, b"abc"), (3, b"")):
        answer = server.patch(url, offset, body)
        expect(answer.status == 204, f"{len(body)} bytes at {offset}", answer)
    expect(answer.get("Upload-Offset") == "3", "Upload-Offset", answer)


@check("P8", "an empty PATCH of a complete upload is 204")
def p8(server):
    url = server.create(3)
    server.patch(url, 0, b"abc")
    for _ in range(2):
        answer = server.patch(url, 3, b"")
        expect(answer.status == 204 and answer.get("Upload-Offset") == "3", "again", answer)


@check("P9", "of two PATCHes at one offset exactly one wins")
def p9(server):
    for _ in range(5):
        name, metadata = server.named()
        bodies = [content(200_000), content(200_000)]
        url = server.create(200_000, metadata=metadata)
        answers = [None, None]

        def send(index):
            answers[index] = server.patch(url, 0, bodies[index])

        threads = [threading.Thread(target=send, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [index for index in (0, 1) if answers[index].status == 204]
        expect(len(won) == 1, "winners", answers)
        expect(answers[1 - won[0]].status in (409, 423), "the loser", answers[1 - won[0]])
        server.stored(url, name, bodies[won[0]])


@check("P10", "HEAD beside a PATCH that stands still answers at once, with an offset that holds")
def p10(server):
    name, metadata = server.named()
    data = content(2_000_000)
    url = server.create(len(data), metadata=metadata)
    with server.begin_patch(url, 0, len(data)) as connection:
        connection.send(data[:1_000_000])
        time.sleep(0.5)
        begun = time.monotonic()
        answer = server.head(url)
        took = time.monotonic() - begun
        expect(answer.status in (200, 204), "HEAD", answer)
        expect(took < 2, f"HEAD took {took:.1f} s")
        offset = int(answer.get("Upload-Offset"))
        answer = server.patch(url, offset, data[offset:])
        expect(answer.status == 204, "the next PATCH", answer)
    server.stored(url, name, data)
