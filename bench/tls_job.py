#!/usr/bin/env python3
"""Downloads over TLS, beside nginx: rate and server CPU per GiB, as ratios of rounds that alternate (carrack / nginx).
Both serve the same bytes with the same certificate and cipher (TLS 1.3, AES-256-GCM) to curl on the same machine. Needs
nginx, openssl and curl. Python 3.9+, no packages.

    bench/tls_job.py [--binary target/release/carrack] [--rounds 7] [--work DIR] [one sixteen one-h2 put put-h2]
"""
import argparse, contextlib, fcntl, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

TOKEN = "bench-root-token"
GIB = 1 << 30
CIPHER = "TLS_AES_256_GCM_SHA384"
CASES = {
    "one": ("4 GiB, one connection, HTTP/1.1", "--http1.1", ["big.bin"]),
    "sixteen": ("16 x 256 MiB at once, HTTP/1.1", "--http1.1", [f"{i:02}.bin" for i in range(16)]),
    "one-h2": ("4 GiB, one connection, HTTP/2", "--http2", ["big.bin"]),
    "put": ("1 GiB upload, HTTP/1.1", "--http1.1", None),
    "put-h2": ("1 GiB upload, HTTP/2", "--http2", None),
}
HERTZ = os.sysconf("SC_CLK_TCK")


def make_file(path, size):
    """Random bytes, made once."""
    if os.path.exists(path) and os.path.getsize(path) == size:
        return
    block = os.urandom(8 << 20)
    with open(path, "wb") as f:
        for _ in range(size // len(block)):
            f.write(block)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(child) for child in f.read().split()]


def cpu_seconds(pid):
    total = 0
    for one in [pid, *children(pid)]:
        with open(f"/proc/{one}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / HERTZ


class Carrack:
    name = "carrack"

    def __init__(self, binary, work):
        self.data = os.path.join(work, "carrack")
        environment = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN, CARRACK_UPLOADS__DURABILITY="process",
                           CARRACK_TLS__CERT=f"{work}/cert.pem", CARRACK_TLS__KEY=f"{work}/key.pem")
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--data", self.data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        line = self.process.stdout.readline()
        self.base = line.strip().split(" ")[-1] + "/v1/files/default"
        self.headers = ["-H", f"Authorization: Bearer {TOKEN}"]
        for name in sorted(os.listdir(f"{work}/files")):
            have = subprocess.run(["curl", "-skfI", *self.headers, f"{self.base}/{name}"], stdout=subprocess.DEVNULL)
            if have.returncode:
                put = ["curl", "-skf", *self.headers, "-o", "/dev/null", "-T", f"{work}/files/{name}", f"{self.base}/{name}"]
                subprocess.run(put, check=True)


class Nginx:
    name = "nginx"

    def __init__(self, work):
        port, self.headers = free_port(), []
        up = f"{work}/nginx-up"
        os.makedirs(up, exist_ok=True)
        with open(f"{work}/nginx.conf", "w") as f:
            f.write(f"""
user root; worker_processes 2; pid {work}/nginx.pid; error_log {work}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; open_file_cache max=30000 inactive=600s;
  client_body_temp_path {up}; client_max_body_size 0; client_body_buffer_size 256k;
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    root {work}/files;
    location /up/ {{ root {work}/nginx-root; dav_methods PUT DELETE; create_full_put_path on; open_file_cache off; }}
  }}
}}
""")
        command = ["nginx", "-e", f"{work}/nginx.log", "-p", work, "-c", f"{work}/nginx.conf", "-g", "daemon off;"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.base = f"https://127.0.0.1:{port}"
        for _ in range(200):
            if subprocess.run(["curl", "-sk", "-o", "/dev/null", self.base]).returncode == 0:
                return
            time.sleep(0.02)
        sys.exit("nginx does not answer")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(server, case, work):
    """One round: GiB/s and CPU seconds per GiB of the server."""
    _, protocol, names = CASES[case]
    curl = ["curl", "-skf", protocol, "--tls13-ciphers", CIPHER, *server.headers]
    before = cpu_seconds(server.process.pid)
    began = time.monotonic()
    if names is None:
        total = os.path.getsize(f"{work}/files/up.bin")
        path = "/up/up.bin" if server.name == "nginx" else "/up.bin"
        clients = [subprocess.Popen([*curl, "-o", "/dev/null", "-T", f"{work}/files/up.bin", server.base + path])]
    else:
        total = sum(os.path.getsize(f"{work}/files/{name}") for name in names)
        clients = [subprocess.Popen([*curl, "-o", "/dev/null", f"{server.base}/{name}"]) for name in names]
    if any([client.wait() for client in clients]):
        sys.exit(f"{server.name} {case}: curl failed")
    seconds = time.monotonic() - began
    return total / GIB / seconds, (cpu_seconds(server.process.pid) - before) / (total / GIB)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/carrack")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", help="kept; a temporary folder that goes away without it")
    parser.add_argument("--lock", help="held exclusively during each round, where others measure too")
    parser.add_argument("cases", nargs="*", default=["one", "sixteen", "one-h2"])
    arguments = parser.parse_args()
    work = arguments.work or tempfile.mkdtemp(prefix="carrack-tls-")
    os.makedirs(f"{work}/files", exist_ok=True)
    if not os.path.exists(f"{work}/cert.pem"):
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=localhost", "-keyout", f"{work}/key.pem", "-out", f"{work}/cert.pem"]
        subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
    names = {name for case in arguments.cases for name in (CASES[case][2] or ["up.bin"])}
    for name in names:
        make_file(f"{work}/files/{name}", {"big.bin": 4 * GIB, "up.bin": GIB}.get(name, GIB // 4))
    servers = []
    try:
        servers.append(Carrack(os.path.abspath(arguments.binary), work))
        servers.append(Nginx(work))
        for case in arguments.cases:
            measure(case, servers, arguments, work)
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()
        if not arguments.work:
            shutil.rmtree(work)


def measure(case, servers, arguments, work):
    figures = {server.name: [] for server in servers}
    for round_number in range(arguments.rounds + 1):
        with open(arguments.lock, "w") if arguments.lock else contextlib.nullcontext() as lock:
            if lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Alternating who begins; the first round warms the caches and does not count.
            for server in servers if round_number % 2 else servers[::-1]:
                figure = run(server, case, work)
                if round_number:
                    figures[server.name].append(figure)
    ours, theirs = figures["carrack"], figures["nginx"]
    print(CASES[case][0])
    for name, of in figures.items():
        rate, cpu = (statistics.median(column) for column in zip(*of))
        print(f"  {name:<8} {rate:6.2f} GiB/s  {cpu:6.3f} CPU s/GiB")
    for index, what in enumerate(["rate", "CPU per GiB"]):
        ratios = [a[index] / b[index] for a, b in zip(ours, theirs)]
        print(f"  ratio of {what:<12} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)", flush=True)


if __name__ == "__main__":
    main()
