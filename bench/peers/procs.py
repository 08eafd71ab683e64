"""Processes under test: a target's life, and what it costs in CPU time and memory (/proc)."""
import fcntl, glob, os, resource, shutil, signal, socket, subprocess, sys, time

BENCH = os.path.dirname(os.path.abspath(__file__))
SCRATCH = os.path.join(os.environ.get("TMPDIR", "/tmp"), "carrack-bench")
PEERS = os.environ.get("BENCH_PEERS", os.path.join(SCRATCH, "peers"))
DATA = os.environ.get("BENCH_DATA", os.path.join(SCRATCH, "data"))
WORK = os.environ.get("BENCH_WORK", os.path.join(SCRATCH, "work"))
TOOLS = os.environ.get("BENCH_TOOLS", os.path.join(PEERS, "tools-target/release"))
LOCK = os.environ.get("BENCH_LOCK")
PORT0 = int(os.environ.get("BENCH_PORT0", "18100"))
CARRACK = os.environ.get("CARRACK_BIN", os.path.join(BENCH, "../../target/release/carrack"))
ROOT = os.path.join(DATA, "root")
MIB, GIB = 1 << 20, 1 << 30
TICK = os.sysconf("SC_CLK_TCK")
ENV = dict(os.environ, BENCH=BENCH, PEERS=PEERS, T_DATA=ROOT, T_CERTS=WORK, CARRACK_BIN=os.path.abspath(CARRACK))


class Lock:
    """Holds $BENCH_LOCK, where others measure on the same machine; nothing without it."""

    def __enter__(self):
        self.file = open(LOCK, "a") if LOCK else None
        if self.file:
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        if self.file:
            self.file.close()


def tree(pid):
    """The process and all its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        if os.path.exists(f"/proc/{one}"):
            found.append(one)
        todo += children.get(one, [])
    return found


def cpu(pids):
    """User and system seconds of these processes and of their reaped children."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                total += sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:15])
        except OSError:
            continue
    return total / TICK


def memory_kib(pids, *fields):
    """The sum of these fields of /proc/PID/status, in KiB."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as f:
                total += sum(int(line.split()[1]) for line in f if line.split(":")[0] in fields)
        except OSError:
            continue
    return total


def user_memory_kib(pids):
    """Memory that is the processes' own: neither files nor what the kernel holds for them."""
    return memory_kib(pids, "RssAnon", "RssShmem")


def reset_peak(pids):
    for pid in pids:
        try:
            with open(f"/proc/{pid}/clear_refs", "w") as f:
                f.write("5")
        except OSError:
            pass


def machine_cpu():
    """Seconds that all cores worked, and seconds that the hypervisor gave to others."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(x) for x in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


def disk_read_mib():
    """MiB that the machine has read from its disks."""
    with open("/proc/vmstat") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("pgpgin ")) / 1024


def socket_memory_kib():
    """What TCP buffers of the whole machine take in the kernel, both ends of a loopback connection."""
    with open("/proc/net/sockstat") as f:
        fields = next(line for line in f if line.startswith("TCP:")).split()
    return int(fields[fields.index("mem") + 1]) * resource.getpagesize() // 1024


class Target:
    """One server, described by targets/NAME.sh. Its scratch folder lives as long as this object, over several starts."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.work = os.path.join(WORK, name)
        self.env = dict(ENV, T_NAME=name, T_PORT=str(port), T_WORK=self.work)
        self.store = os.path.join(self.work, "data", "blobs")  # where a server that takes files in keeps what it serves
        self.process = None
        out = self.shell('echo "$T_CASES"; t_version')
        if out.returncode:
            raise RuntimeError("not installed, or does not tell its version (setup.sh installs it)")
        cases, self.version = out.stdout.strip().split("\n")[:2]
        self.cases = cases.split()
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)

    def shell(self, code):
        source = f'set -o pipefail; . "$BENCH/lib.sh"; . "$BENCH/targets/{self.name}.sh"; {code}'
        return subprocess.run(["bash", "-c", source], env=self.env, capture_output=True, text=True, timeout=300)

    def start(self, case):
        """Starts the server for a case, waits until it listens, and prepares what the case needs."""
        self.env["T_CASE"] = case
        self.must("t_setup")
        with open(os.path.join(self.work, "server.log"), "a") as log:
            serve = f'ulimit -n 20000; . "$BENCH/lib.sh"; . "$BENCH/targets/{self.name}.sh"; t_serve'
            self.process = subprocess.Popen(["bash", "-c", serve], env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.work, start_new_session=True)
        self.wait_until_it_listens()
        self.must(f"t_prepare {case}")
        self.urls = self.must(f"t_urls {case}").split()
        self.headers = [h for h in self.must("t_headers").split("\n") if h]
        if not self.urls:
            raise RuntimeError(f"no URL for {case}")

    def must(self, code):
        done = self.shell(code)
        if done.returncode:
            raise RuntimeError(f"{code}: {done.stderr[-500:]}")
        return done.stdout

    def wait_until_it_listens(self):
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                time.sleep(0.2)
                return
            except OSError:
                time.sleep(0.1)
        with open(os.path.join(self.work, "server.log")) as f:
            raise RuntimeError(f"does not listen: {f.read()[-500:]}")

    def header_arguments(self, flag):
        return [x for header in self.headers for x in (flag, header)]

    def pids(self):
        return tree(self.process.pid)

    def stop(self):
        """SIGTERM to the process that was started, then SIGKILL to what is left of its session."""
        if not self.process:
            return
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"{self.name}: does not stop, is killed", file=sys.stderr)
        for pid in pids:
            try:
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.process.wait()
        self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)


def make_targets(names):
    """The targets that are installed; what is missing is said and left out."""
    targets = []
    for index, name in enumerate(names):
        try:
            targets.append(Target(name, PORT0 + index))
        except (RuntimeError, ValueError) as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
    return targets


def target_names():
    return sorted(os.path.basename(path)[:-3] for path in glob.glob(BENCH + "/targets/*.sh"))


def make_certificate():
    """One certificate for all servers, $T_CERTS/cert.pem and key.pem."""
    os.makedirs(WORK, exist_ok=True)
    if not os.path.exists(f"{WORK}/cert.pem"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "30", "-subj", "/CN=localhost", "-keyout", f"{WORK}/key.pem", "-out", f"{WORK}/cert.pem"],
                       check=True, stderr=subprocess.DEVNULL)
