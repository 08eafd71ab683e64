#!/usr/bin/env python3
"""Carrack and other servers side by side, on this machine, over loopback.

    bench.py list
    bench.py run [--cases D1,D2,..] [--targets nginx,carrack,..] [--rounds N] [--out FILE.jsonl]
                 [--congestion-control reno] [--publish]
    bench.py publish FILE.jsonl        puts results into docs/benchmarks.md

All targets of a case run at the same time (an idle one costs nothing) and take turns, the order reversed in every other
round, so that drift of the machine hits all alike; what is compared are the figures of one round.
"""
import argparse, json, os, platform, resource, subprocess, sys, time
import publish
from cases import CASES, VARIANTS, repetition
from procs import BENCH, MIB, ROOT, WORK, Lock, make_certificate, make_targets, target_names

DEFAULT_CASES = "D1,D1t,D2,D3,D4,D5,I1,T1,T16"
DOCUMENT = os.path.join(BENCH, "../../docs/benchmarks.md")


def emit(path, record):
    record["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(path, "a") as f:
        f.write(json.dumps(record) + "\n")


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout or done.stderr).split("\n")[0].strip()


def machine():
    """What the figures were measured on."""
    def field(path, key):
        with open(path) as f:
            return next((line.split(":", 1)[1].strip() for line in f if line.startswith(key)), "")

    def setting(name):
        with open(f"/proc/sys/net/ipv4/{name}") as f:
            return " ".join(f.read().split())

    commit = "" if "CARRACK_BIN" in os.environ else first_line(["git", "-C", BENCH, "describe", "--always", "--dirty"])
    return dict(kind="machine", same_congestion_control="BENCH_OWN_NETWORK" in os.environ, cpu=field("/proc/cpuinfo", "model name"), cores=os.cpu_count(), virtual="hypervisor" in field("/proc/cpuinfo", "flags"),
                memory_gib=round(int(field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)), kernel=platform.release(),
                system=first_line(["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"]),
                congestion_control=setting("tcp_congestion_control"), tcp_wmem=setting("tcp_wmem"), commit=commit,
                clients=[first_line(["curl", "--version"]).split(" (")[0], first_line(["wrk", "--version"]).split(" [")[0]])


def warm(folders, seen):
    """Reads files to their end, so that the disk is not in the figures. At first what the page cache has of them is dropped:
    pages that were written come in larger pieces than pages that were read, which sendfile is much faster with, and some
    servers' copies were only just written."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                with open(path, "rb", buffering=0) as f:
                    if path not in seen:
                        seen.add(path)
                        os.fsync(f.fileno())
                        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    while f.read(4 * MIB):
                        pass


def run_case(case, targets, arguments):
    """All rounds of one case. One more comes first, to warm up, and leaves no record unless it fails."""
    began, fresh, out = time.monotonic(), CASES[case].get("fresh"), arguments.out
    up = []
    try:
        for target in targets:
            try:
                target.start(case)
                up.append(target)
            except RuntimeError as error:
                print(f"{case} {target.name}: {error}", flush=True)
                emit(out, dict(kind="run", case=case, variant="", target=target.name, version=target.version, ok=False, error=str(error)))
                target.stop()
        warm([os.path.join(ROOT, folder) for folder in CASES[case]["warm"]] + [target.store for target in up], arguments.warmed)
        for variant in VARIANTS.get(case, [""]):
            failed, spent = set(), {}
            for turn in range(-1, arguments.rounds):
                for target in up if turn % 2 else up[::-1]:
                    # A slow one gets fewer rounds; the tables say how many.
                    if target in failed or (turn >= 3 and spent.get(target, 0) > arguments.max_seconds):
                        continue
                    if fresh and turn >= 0:
                        target.stop()
                        target.start(case)
                    since = time.monotonic()
                    record = repetition(target, case, variant)
                    spent[target] = spent.get(target, 0) + time.monotonic() - since
                    if not record["ok"]:
                        failed.add(target)
                    if turn >= 0 or not record["ok"]:
                        emit(out, dict(record, round=turn))
                        print(publish.one_line(record, turn), flush=True)
    finally:
        for target in targets:
            target.stop()
    print(f"-- {case}: {time.monotonic() - began:.0f} s", flush=True)


def into_own_network(congestion_control):
    """Starts this program again in a network namespace with a loopback of its own, where every server has this congestion
    control, whichever the machine has. Needs root."""
    script = 'ip link set lo up && echo "$0" >/proc/sys/net/ipv4/tcp_congestion_control && exec "$@"'
    os.environ["BENCH_OWN_NETWORK"] = "1"
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", script, congestion_control, sys.executable, *sys.argv])


def command_run(arguments):
    if arguments.congestion_control and "BENCH_OWN_NETWORK" not in os.environ:
        into_own_network(arguments.congestion_control)
    cases = arguments.cases.split(",")
    if unknown := [case for case in cases if case not in CASES]:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    make_certificate()
    os.makedirs(os.path.dirname(os.path.abspath(arguments.out)), exist_ok=True)
    with open(arguments.out, "w"):
        pass
    targets = make_targets(arguments.targets.split(","))
    emit(arguments.out, machine())
    try:
        for case in cases:
            if having := [target for target in targets if case in target.cases]:
                with Lock():
                    run_case(case, having, arguments)
    finally:
        for target in targets:
            target.remove()
    print(publish.against_nginx(publish.read(arguments.out)))
    if arguments.publish:
        publish.write(arguments.out, DOCUMENT)


def command_list(_):
    for target in make_targets(target_names()):
        print(f"{target.name:10} {target.version:44} {' '.join(target.cases)}")
        target.remove()
    for case, about in CASES.items():
        print(f"{case:10} {about['title']}")


def command_publish(arguments):
    publish.write(arguments.file, DOCUMENT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    run = commands.add_parser("run")
    run.add_argument("--cases", default=DEFAULT_CASES)
    run.add_argument("--targets", default="nginx,carrack")
    run.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_ROUNDS", "7")))
    run.add_argument("--out", default=os.path.join(WORK, "results.jsonl"), help="is replaced")
    run.add_argument("--max-seconds", type=float, default=60, help="after which a target gets no more than three rounds of a case")
    run.add_argument("--congestion-control", help="the same for all servers, in a network of its own; as the machine has it otherwise")
    run.add_argument("--publish", action="store_true", help="puts the results into docs/benchmarks.md")
    commands.add_parser("publish").add_argument("file")
    arguments = parser.parse_args()
    arguments.warmed = set()
    globals()["command_" + arguments.command](arguments)


if __name__ == "__main__":
    main()
