"""Results to text: medians of paired ratios, and the tables of docs/benchmarks.md."""
import json, os, re, statistics
from cases import CASES

# What Carrack is held to beside nginx: rate at least, CPU and p99 at most this, as medians of paired ratios.
GOALS = {
    "D1": dict(rate=1.0, cpu=1.05),
    "D1t": dict(rate=1.0, cpu=1.0),
    "D2": dict(rate=1.1, cpu=1.0),
    "D3": dict(rate=1.0, cpu=1.0, p99_ms=1.0),
    "D4": dict(rate=1.1, cpu=1.0, p99_ms=0.5),
    "T1": dict(rate=1.0, cpu=1.05),
    "T16": dict(rate=1.0, cpu=1.05),
}
KEPT_GOAL, SLOW_USER_KIB_GOAL, IDLE_KIB_GOAL = 0.95, 24, 8
HEADINGS = {"nginx": "## Carrack and nginx", "same": "## Carrack and nginx, the same congestion control", "peers": "## All servers"}


def read(path):
    with open(path) as f:
        return [json.loads(line) for line in f if line.strip()]


def number(x):
    if x is None:
        return "–"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def one_line(record, turn):
    head = f"{record['case']:4} {record['variant']:10} {record['target']:10} {turn:2}"
    if not record["ok"]:
        return f"{head} FAILED {record['error']}"
    more = " ".join(f"{key} {number(record[key])}" for key in ("cpu", "p99_ms", "kept", "slow_user_kib", "slow_kernel_kib") if key in record)
    return f"{head} {record['rate']:10.3f} {CASES[record['case']]['unit']} {more} foreign {record.get('foreign_share', 0):.0%} disk {record['disk_read_mib']} MiB"


def runs(records, case=None, target=None):
    return [r for r in records if r["kind"] == "run" and r["ok"] and case in (None, r["case"]) and target in (None, r["target"])]


def median(records, key):
    values = [r[key] for r in records if key in r]
    return statistics.median(values) if values else None


def paired(records, case, target, key, base="nginx"):
    """The target's figure by the base's of the same round, for each round that has both."""
    bases = {(r["variant"], r["round"]): r[key] for r in runs(records, case, base) if r.get(key)}
    return [r[key] / bases[r["variant"], r["round"]] for r in runs(records, case, target) if key in r and (r["variant"], r["round"]) in bases]


def against_goal(ratios, goal, least):
    """`1.08 (1.02 to 1.11)`, and the goal where there is one."""
    if not ratios:
        return "–"
    middle = statistics.median(ratios)
    text = f"**{middle:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    return text + (f"; {goal_text(middle, goal, least)}" if goal is not None else "")


def goal_text(value, goal, least):
    # Held to the two digits that are shown.
    met = round(value, 2) >= goal if least else round(value, 2) <= goal
    return f"goal {'≥' if least else '≤'} {goal:g}: {'met' if met else '**missed**'}"


def against_nginx(records):
    """Carrack and nginx, case by case."""
    lines = ["| case | Carrack | nginx | ratio of rates | ratio of CPU per GiB or request | ratio of p99 | rounds |", "|" + "---|" * 7]
    for case, about in CASES.items():
        ours, theirs = runs(records, case, "carrack"), runs(records, case, "nginx")
        if case in ("D5", "I1") or not ours or not theirs:
            continue
        goals = GOALS.get(case, {})
        shown = [absolute(of, about["unit"]) for of in (ours, theirs)]
        ratios = {key: paired(records, case, "carrack", key) for key in ("rate", "cpu", "p99_ms")}
        cells = [against_goal(ratios[key], goals.get(key), key == "rate") for key in ("rate", "cpu", "p99_ms")]
        lines.append(f"| {case}: {about['title']} | {' | '.join(shown + cells)} | {len(ratios['rate'])} |")
    return "\n".join(["\n".join(lines), "", quiet_clients(records)]).rstrip("\n") + "\n"


def absolute(records, unit):
    """The medians themselves."""
    latency = f", p99 {number(median(records, 'p99_ms'))} ms" if median(records, "p99_ms") is not None else ""
    return f"{number(median(records, 'rate'))} {unit}, {number(median(records, 'cpu'))} {'s/GiB' if unit == 'GiB/s' else 'µs'}{latency}"


def names(records):
    """Targets in the order of the first record: nginx first."""
    found = list(dict.fromkeys(r["target"] for r in records if r["kind"] == "run"))
    return sorted(found, key=lambda name: (name != "nginx", name != "carrack", name))


def quiet_clients(records):
    lines = ["| server | speed of the fast client beside 200 slow ones, by its speed alone (D5) | user memory per slow client | kernel memory per slow client, both ends "
             "| CPU with the slow clients only | user memory per idle connection (I1) |", "|" + "---|" * 6]
    for name in names(records):
        slow, idle = runs(records, "D5", name), runs(records, "I1", name)
        if not slow and not idle:
            continue
        kept, user, each = median(slow, "kept"), median(slow, "slow_user_kib"), median(idle, "idle_kib")
        goal = (lambda value, bound, least: f"; {goal_text(value, bound, least)}") if name == "carrack" else (lambda *_: "")
        cells = [name,
                 f"{kept:.2f} ({min(r['kept'] for r in slow):.2f} to {max(r['kept'] for r in slow):.2f}){goal(kept, KEPT_GOAL, True)}" if slow else "–",
                 f"{number(user)} KiB{goal(user, SLOW_USER_KIB_GOAL, False)}" if slow else "–",
                 f"{number(median(slow, 'slow_kernel_kib'))} KiB" if slow else "–",
                 f"{number(median(slow, 'slow_cpu_pct'))} % of a core" if slow else "–",
                 f"{number(each)} KiB{goal(each, IDLE_KIB_GOAL, False)}" if idle else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def all_servers(records):
    """Every server's paired ratios to nginx."""
    cases = [case for case in CASES if case not in ("D5", "I1") and runs(records, case, "nginx")]
    text = []
    for key, what in (("rate", "Rate by nginx's of the same round (more is better)"), ("cpu", "CPU per GiB or request by nginx's (less is better)"),
                      ("p99_ms", "p99 by nginx's (less is better)")):
        having = [case for case in cases if any(key in r for r in runs(records, case, "nginx"))]
        if not having:
            continue
        text += [f"{what}:\n", "| server | " + " | ".join(having) + " |", "|" + "---|" * (len(having) + 1)]
        for name in names(records):
            cells = []
            for case in having:
                ratios = paired(records, case, name, key)
                failed = any(r["kind"] == "run" and not r["ok"] and r["target"] == name and r["case"] == case for r in records)
                cells.append("failed" if failed else number(statistics.median(ratios)) if ratios else "–")
            text.append(f"| {name} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text) + "\n" + quiet_clients(records)


def measured_on(records):
    m = next(r for r in records if r["kind"] == "machine")
    versions = {r["target"]: r["version"] for r in records if r["kind"] == "run"}
    if m["commit"] and "carrack" in versions:
        versions["carrack"] += f" ({m['commit']})"
    congestion = m["congestion_control"]
    if congestion != "reno":
        congestion += " (but reno on Carrack's connections, which are loopback)"
    return (f"Measured on {m['at'][:10]}: {m['cores']} cores of {m['cpu']}{' (virtual machine)' if m['virtual'] else ''}, {m['memory_gib']} GiB, {m['system']}, "
            f"Linux {m['kernel']}, congestion control {congestion}, tcp_wmem {m['tcp_wmem']}. "
            f"Servers: {'; '.join(versions[name] for name in names(records))}. Clients: {', '.join(c for c in m['clients'] if c)}.")


def noise(records):
    """How far the figures can be trusted, from the figures themselves."""
    spreads = {}
    for case in CASES:
        rates = [r["rate"] for r in runs(records, case, "nginx") if r["case"] != "I1"]
        if len(rates) > 1:
            spreads[case] = max(rates) / min(rates) - 1
    if not spreads:
        return ""
    worst = max(spreads, key=spreads.get)
    foreign = max((r for r in runs(records) if "foreign_share" in r), key=lambda r: r["foreign_share"])
    steal = max(runs(records), key=lambda r: r["steal_share"])
    disk = max(runs(records), key=lambda r: r["disk_read_mib"])
    return (f"Noise: nginx's own rate differed between the rounds of one case by {statistics.median(spreads.values()):.0%} in the median of the cases and by "
            f"{spreads[worst]:.0%} at worst ({worst}). Other processes took at most {foreign['foreign_share']:.0%} of the machine during a run "
            f"({foreign['case']}, {foreign['target']}), the hypervisor at most {steal['steal_share']:.0%} ({steal['case']}, {steal['target']}); "
            f"from disk came at most {disk['disk_read_mib']:,} MiB ({disk['case']}, {disk['target']}). Client and server share the "
            "cores, so a rate is the sum of what both cost, and a client that costs much hides a server's difference; the ratio of CPU is the "
            "steadier figure. A ratio whose range, in brackets, has 1.00 in it is a tie.")


def write(results, document):
    """Replaces the sections of the document for which there are results; the others stay as they are."""
    records = read(results)
    with open(document) as f:
        text = f.read()
    same = next(r for r in records if r["kind"] == "machine")["same_congestion_control"]
    sections = {"same" if same else "nginx": against_nginx(records)}
    if not same and set(names(records)) - {"nginx", "carrack"}:
        sections["peers"] = all_servers(records)
    for key, table in sections.items():
        new = f"{HEADINGS[key]}\n\n{measured_on(records)}\n\n{table}\n{noise(records)}\n"
        pattern = re.compile(rf"^{re.escape(HEADINGS[key])}\n.*?(?=^## |\Z)", re.M | re.S)
        text = pattern.sub(lambda _: new + "\n", text) if pattern.search(text) else text.rstrip("\n") + "\n\n" + new
    temporary = document + ".part"
    with open(temporary, "w") as f:
        f.write(text.rstrip("\n") + "\n")
    os.replace(temporary, document)
