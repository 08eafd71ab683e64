"""Holds a tus 1.0 server against the protocol, one check per statement.

    python3 tests/conformance/tus --url http://127.0.0.1:1080/files/
    python3 tests/conformance/tus --url http://127.0.0.1:8080/v1/tus --header 'Authorization: Bearer TOKEN' \\
        --fetch 'http://127.0.0.1:8080/v1/files/default/{filename}'

Prints a line for each check, or JSON with --json. Exits with 0 when no check failed. Only Python's standard library is
needed. The server keeps some small uploads: do not point it at one whose data matters.
"""

import argparse
import json
import sys
import traceback

import core  # noqa: F401  registers its checks
import creation  # noqa: F401
import extensions  # noqa: F401
import wire
from suite import CHECKS, Server, Skip


def header(text):
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where uploads are created")
    parser.add_argument("--header", action="append", default=[], type=header, help="sent with every request")
    parser.add_argument("--other-header", action="append", default=[], type=header, help="those of somebody else")
    parser.add_argument("--fetch", help="where a finished upload can be fetched; {filename} is that of its metadata")
    parser.add_argument("--expires-within", type=float, help="seconds after which the server expires an upload")
    parser.add_argument("--only", help="names of checks, comma-separated")
    parser.add_argument("--json", action="store_true", help="prints the results as JSON")
    return parser.parse_args()


def run(server, extension, function):
    if extension and extension not in server.extensions:
        return "absent", f"the server does not announce {extension}"
    try:
        # One that fell over in the check before may be started again by whoever watches it.
        wire.wait_until(lambda: wire.is_up(server.url))
        function(server)
        return "pass", ""
    except Skip as reason:
        return "skip", str(reason)
    except AssertionError as error:
        return "fail", str(error)
    except Exception as error:  # A server that closes the connection fails the check, not the run.
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "fail", f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"


def main():
    wanted = arguments()
    server = Server(wanted.url, wanted.header, wanted.fetch, wanted.expires_within, wanted.other_header)
    only = set(wanted.only.split(",")) if wanted.only else None
    results = []
    for name, says, extension, function in CHECKS:
        if only and name not in only:
            continue
        result, why = run(server, extension, function)
        results.append({"check": name, "says": says, "result": result, "why": why})
        if not wanted.json:
            print(f"{result:6} {name:4} {says}" + (f"\n            {why}" if why else ""), flush=True)
    counts = {kind: sum(1 for r in results if r["result"] == kind) for kind in ("pass", "fail", "absent", "skip")}
    if wanted.json:
        print(json.dumps({"url": wanted.url, "counts": counts, "results": results}, indent=1))
    else:
        print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    sys.exit(1 if counts["fail"] else 0)


main()
