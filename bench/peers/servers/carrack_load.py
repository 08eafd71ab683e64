#!/usr/bin/env python3
"""Loads files (NUL-separated relative paths on stdin) into a carrack server by plain PUTs over a few keep-alive
connections, or with --delete removes what the upload cases left (up/ and tus/)."""
import http.client, json, os, ssl, sys, threading, urllib.parse

args = [a for a in sys.argv[1:] if a != "--delete"]
base, token = urllib.parse.urlsplit(args[0]), args[1]
AUTH = {"Authorization": "Bearer " + token}


def connect():
    if base.scheme == "https":  # the certificate of the benchmark is its own
        return http.client.HTTPSConnection(base.hostname, base.port, timeout=600, context=ssl._create_unverified_context())
    return http.client.HTTPConnection(base.hostname, base.port, timeout=600)


def call(c, method, path, body=None, headers=None):
    c.request(method, path, body=body, headers={**AUTH, **(headers or {})})
    r = c.getresponse()
    return r.status, r.read()


if "--delete" in sys.argv:
    c = connect()
    for prefix in ("up/", "tus/"):
        while True:
            status, body = call(c, "GET", f"/v1/files/default?prefix={prefix}&limit=1000")
            files = json.loads(body).get("files", []) if status == 200 else []
            for f in files:
                call(c, "DELETE", "/v1/files/default/" + urllib.parse.quote(f["key"]))
            if not files:
                break
    sys.exit(0)

paths = [p for p in sys.stdin.read().split("\0") if p]
lock, failed = threading.Lock(), []


def work():
    c = connect()
    while True:
        with lock:
            if not paths or failed:
                return
            p = paths.pop()
        with open(p, "rb") as f:
            status, body = call(c, "PUT", "/v1/files/default/" + urllib.parse.quote(p), f, {"Content-Length": str(os.path.getsize(p))})
        if status not in (200, 201):
            failed.append((p, status, body[:200]))


threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
if failed:
    print("not loaded:", failed[0], file=sys.stderr)
    sys.exit(1)
