#!/usr/bin/env python3
"""Measures bytes that go to S3 and back through the release binary, beside `aws s3 cp` to and from the same Garage, in turns;
what of them touches the local disk, what a part costs in requests, and in memory. Prints one line per figure with the bound it
is held against. Python 3.9+, no packages; needs `garage` and `aws` on the PATH.

    bench/s3.py [--binary target/release/carrack] [--mib 512] [--rounds 3] [upload download cost]
"""
import argparse, http.client, json, os, re, shutil, signal, socket, statistics, subprocess, tempfile, threading, time, urllib.request

TOKEN = "bench-root-token"
KEY_ID, SECRET = "GK31c2f218a2e44f485b94239e", "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835"
BUCKET, REGION, ADMIN = "carrack", "garage", "of-this-machine-alone"
MIB = 1 << 20
PART = 8 * MIB
CONNECTIONS = 8


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, works, seconds=30):
    end = time.monotonic() + seconds
    while True:
        try:
            if works():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"{what} does not start")
        time.sleep(0.05)


class Garage:
    """One node, as the tests have it."""

    def __init__(self, folder):
        self.port, rpc, self.admin = free_port(), free_port(), free_port()
        os.mkdir(folder)
        with open(f"{folder}/garage.toml", "w") as config:
            config.write(
                f'metadata_dir = "{folder}/meta"\ndata_dir = "{folder}/data"\ndb_engine = "sqlite"\nreplication_factor = 1\n'
                f'rpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\nrpc_secret = "{"17" * 32}"\n'
                f'[s3_api]\ns3_region = "{REGION}"\napi_bind_addr = "127.0.0.1:{self.port}"\n'
                f'[admin]\napi_bind_addr = "127.0.0.1:{self.admin}"\nadmin_token = "{ADMIN}"\nmetrics_token = "{ADMIN}"\n'
            )
        env = dict(os.environ, GARAGE_DEFAULT_ACCESS_KEY=KEY_ID, GARAGE_DEFAULT_SECRET_KEY=SECRET, GARAGE_DEFAULT_BUCKET=BUCKET,
                   GARAGE_ALLOW_WORLD_READABLE_SECRETS="true", RUST_LOG="warn")
        command = ["garage", "-c", f"{folder}/garage.toml", "server", "--single-node", "--default-bucket"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        until("garage", lambda: bool(self.requests() is not None))
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def requests(self):
        """How many of each S3 operation it has served."""
        ask = urllib.request.Request(f"http://127.0.0.1:{self.admin}/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
        with urllib.request.urlopen(ask, timeout=5) as answer:
            text = answer.read().decode()
        found = re.findall(r'^api_s3_request_counter\{api_endpoint="(\w+)"[^}]*\} (\d+)', text, re.M)
        return {name: int(count) for name, count in found}

    def stop(self):
        self.process.kill()
        self.process.wait()


class Server:
    def __init__(self, binary, data, garage, memory="256MiB"):
        env = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN, CARRACK_TELEMETRY__LOG="error", CARRACK_STORAGE__KIND="s3")
        settings = dict(ENDPOINT=garage.endpoint, REGION=REGION, BUCKET=BUCKET, PREFIX="bench/", ACCESS_KEY_ID=KEY_ID,
                        SECRET_ACCESS_KEY=SECRET, PATH_STYLE="true", MEMORY=memory)
        env.update({"CARRACK_STORAGE__S3__" + name: value for name, value in settings.items()})
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--data", data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        self.port = int(self.process.stdout.readline().strip().rsplit(":", 1)[1])
        until("carrack", lambda: self.call("GET", "/readyz")[0] == 200)

    def call(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers={"Authorization": "Bearer " + TOKEN, **fields})
        response = connection.getresponse()
        return response.status, response.read(), response

    def proc(self, name, field):
        with open(f"/proc/{self.process.pid}/{name}") as f:
            return int(re.search(rf"^{field}:\s+(\d+)", f.read(), re.M).group(1))

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as f:
            f.write("5")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Wire:
    """One connection: bodies go out of the file, and come in, without passing Python."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.rest = b""

    def head(self, line, **headers):
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"{line} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\r\n".encode())

    def answer(self, *expected):
        while b"\r\n\r\n" not in self.rest:
            more = self.socket.recv(65536)
            assert more, "closed"
            self.rest += more
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        status = int(head.split(b" ", 2)[1])
        length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
        length = int(length.group(1)) if length else 0
        assert status in expected, (head, self.rest)
        return length

    def send(self, file, offset, count):
        while count > 0:
            sent = os.sendfile(self.socket.fileno(), file, offset, count)
            offset, count = offset + sent, count - sent

    def skip(self, length):
        while len(self.rest) < length:
            self.rest += self.socket.recv(65536)
        self.rest = self.rest[length:]

    def take(self, file, offset, count, buffer):
        os.pwrite(file, self.rest, offset)
        offset, count, self.rest = offset + len(self.rest), count - len(self.rest), b""
        while count > 0:
            got = self.socket.recv_into(buffer, min(count, len(buffer)))
            assert got, "closed"
            os.pwrite(file, memoryview(buffer)[:got], offset)
            offset, count = offset + got, count - got


def parallel(work, items):
    """Does the work on all items over so many connections; whoever is free takes the next."""
    waiting, failures, lock = list(reversed(items)), [], threading.Lock()

    def run():
        try:
            state = None
            while True:
                with lock:
                    if not waiting or failures:
                        return
                    item = waiting.pop()
                state = work(item, state)
        except Exception as error:  # noqa: BLE001 - shown below, then the bench fails
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if failures:
        raise SystemExit(f"failed: {failures[0]!r}")


def report(name, value, unit, bound):
    print(f"{name:<64} {value:>9.2f} {unit:<5} (bound: {bound})", flush=True)


class Ground:
    def __init__(self, options, memory="256MiB"):
        self.folder = tempfile.mkdtemp(prefix="carrack-bench-", dir=options.folder)
        self.size = options.mib * MIB
        self.garage = Garage(f"{self.folder}/garage")
        self.data = f"{self.folder}/data"
        self.server = Server(options.binary, self.data, self.garage, memory)
        self.file = f"{self.folder}/file"
        with open(self.file, "wb") as file:
            block = os.urandom(64 * MIB)
            for at in range(0, self.size, len(block)):
                file.write(block[: self.size - at])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.garage.stop()
        shutil.rmtree(self.folder)

    def aws(self, *arguments):
        env = dict(os.environ, AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION=REGION,
                   AWS_CONFIG_FILE=os.devnull)
        command = ["aws", "--endpoint-url", self.garage.endpoint, "s3", *arguments]
        done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr

    def start_of_aws(self):
        """Seconds in which it copies one byte."""
        small = f"{self.folder}/small"
        with open(small, "wb") as file:
            file.write(b"x")
        began = time.monotonic()
        self.aws("cp", "--no-progress", small, f"s3://{BUCKET}/small")
        return time.monotonic() - began

    def begin(self, name):
        wish = json.dumps({"bucket": "default", "key": name, "size": self.size, "part_size": PART})
        status, body, _ = self.server.call("POST", "/v1/uploads", wish)
        assert status == 201, body
        return "/v1/uploads/" + json.loads(body)["upload_id"]

    def send_parts(self, upload):
        file = os.open(self.file, os.O_RDONLY)

        def part(number, wire):
            wire = wire or Wire(self.server)
            offset, size = (number - 1) * PART, min(PART, self.size - (number - 1) * PART)
            wire.head(f"PUT {upload}/parts/{number}", Content_Length=size)
            wire.send(file, offset, size)
            wire.skip(wire.answer(200))
            return wire

        parallel(part, list(range(1, -(-self.size // PART) + 1)))
        os.close(file)

    def complete(self, upload):
        status, body, _ = self.server.call("POST", upload + "/complete", "{}")
        assert status == 201, body

    def put_parts(self, name):
        upload = self.begin(name)
        self.send_parts(upload)
        self.complete(upload)

    def put_tus(self, name):
        key = __import__("base64").b64encode(name.encode()).decode()
        status, body, made = self.server.call("POST", "/v1/tus", None, Tus_Resumable="1.0.0", Upload_Length=str(self.size),
                                              Upload_Metadata=f"key {key}")
        assert status == 201, body
        path = "/v1/tus/" + made.headers["Location"].rsplit("/", 1)[1]
        wire, file = Wire(self.server), os.open(self.file, os.O_RDONLY)
        wire.head(f"PATCH {path}", Tus_Resumable="1.0.0", Upload_Offset=0, Content_Length=self.size,
                  Content_Type="application/offset+octet-stream")
        wire.send(file, 0, self.size)
        wire.answer(204)
        os.close(file)

    def get(self, name, target):
        file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

        def part(offset, state):
            wire, buffer = state or (Wire(self.server), bytearray(MIB))
            end = min(self.size, offset + PART)
            wire.head(f"GET /v1/files/default/{name}", Range=f"bytes={offset}-{end - 1}")
            assert wire.answer(206) == end - offset
            wire.take(file, offset, end - offset, buffer)
            return wire, buffer

        parallel(part, list(range(0, self.size, PART)))
        os.close(file)

    def get_whole(self, name, target):
        """Over one connection."""
        file, wire = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC), Wire(self.server)
        wire.head(f"GET /v1/files/default/{name}")
        assert wire.answer(200) == self.size
        wire.take(file, 0, self.size, bytearray(MIB))
        os.close(file)


def compare(ground, options, ways):
    """Each way in turns; the medians, beside the first."""
    took = {name: [] for name, _ in ways}
    for _ in range(options.rounds):
        for name, way in ways:
            began = time.monotonic()
            way()
            took[name].append(time.monotonic() - began)
            time.sleep(0.5)
    base = statistics.median(took[ways[0][0]])
    for name, _ in ways:
        rate = ground.size / MIB / statistics.median(took[name])
        shown = ", ".join(f"{seconds:.1f}" for seconds in took[name])
        print(f"{name}: {rate:.0f} MiB/s (s: {shown})", flush=True)
    start = ground.start_of_aws()
    for name, _ in ways[1:]:
        report(f"{name} beside aws s3 cp", base / statistics.median(took[name]), "x", "at least 0.9")
        less = (base - start) / statistics.median(took[name])
        report(f"the same, less the {start:.1f} s that aws takes to copy a byte", less, "x", "for information")


def upload(options):
    with Ground(options) as ground:
        compare(ground, options, [
            ("upload by aws s3 cp", lambda: ground.aws("cp", "--no-progress", ground.file, f"s3://{BUCKET}/by-aws")),
            ("upload in parts, 8 connections", lambda: ground.put_parts("parts")),
            ("upload by one PATCH of tus", lambda: ground.put_tus("tus")),
        ])


def download(options):
    with Ground(options) as ground:
        ground.aws("cp", "--no-progress", ground.file, f"s3://{BUCKET}/by-aws")
        ground.put_parts("parts")
        target = f"{ground.folder}/target"
        compare(ground, options, [
            ("download by aws s3 cp", lambda: ground.aws("cp", "--no-progress", f"s3://{BUCKET}/by-aws", target)),
            ("download of ranges, 8 connections", lambda: ground.get("parts", target)),
            ("download by one GET", lambda: ground.get_whole("parts", target)),
        ])
        subprocess.run(["cmp", target, ground.file], check=True)


def stored_bytes(folder):
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def cost(options):
    memory = 64
    with Ground(options, f"{memory}MiB") as ground:
        server = ground.server
        ground.put_parts("warm")
        upload = ground.begin("parts")
        server.forget_peak()
        resting = server.proc("status", "VmRSS")
        requests, written, folder = ground.garage.requests(), server.proc("io", "write_bytes"), stored_bytes(ground.data)
        ground.send_parts(upload)
        after = ground.garage.requests()
        parts = -(-ground.size // PART)
        sent = after.get("UploadPart", 0) - requests.get("UploadPart", 0)
        report(f"{parts} aligned parts: requests UploadPart", sent, "", parts)
        others = sum(after.values()) - sum(requests.values()) - sent
        report("and other requests to S3", others, "", "0")
        report("staging/ and blobs/ on the local disk", sum(os.path.exists(f"{ground.data}/{name}") for name in ("staging", "blobs")), "", "0")
        report("the data folder has grown by", (stored_bytes(ground.data) - folder) / MIB, "MiB", "the ledger's lines")
        report("written to the local disk", (server.proc("io", "write_bytes") - written) / MIB, "MiB", "the catalog's log")
        report(f"memory above that at rest, of {memory} MiB allowed", (server.proc("status", "VmHWM") - resting) / 1024, "MiB", memory)
        report("memory at most", server.proc("status", "VmHWM") / 1024, "MiB", "for information")
        ground.complete(upload)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/carrack")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("what", nargs="*", default=[])
    options = parser.parse_args()
    for name in options.what or ["upload", "download", "cost"]:
        {"upload": upload, "download": download, "cost": cost}[name](options)


if __name__ == "__main__":
    main()
