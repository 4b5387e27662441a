# SPDX-License-Identifier: MIT
"""report_check.py DIR: bench/report.py makes of results what they say, however little of them is there. The results here are made
by formulas, with round numbers that nobody could measure, of "no machine": they stand for nothing.

Shown: the page is one whole piece (balanced elements, ids of its own, no address outside of it) and says the same as the
Markdown; verdicts and recommendations follow the figures, both ways; what is missing is "not measured" and not zero; files that
are cut, damaged or absent, and a machine without gnuplot, cost what they would have shown and nothing else.
"""
import copy, html.parser, json, os, random, re, shutil, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "bench"))
sys.dont_write_bytecode = True
import report
import report_choice
from report_data import APART, NOT_MEASURED, clearly, figure, load

HERE = sys.argv[1]
COMMON = {"commit": "0000000", "date": "no day", "machine": {"cpu": "no machine", "kernel": "none"}, "seed": 7, "rounds": 5, "seconds_each": 1, "quick": False}
ADDED_NS = {"none": 0, "copy": 200, "validate": 10, "pin": 20, "iommu": 100, "pin-each": 1000}  # to a request of 1000
VOID = {"meta", "br", "path", "rect", "use", "circle"}


def spread(x, wide=0.001):
    return {"median": x, "least": x * (1 - wide), "most": x * (1 + wide)}


def dma_row(strategy, **other):
    r = {"strategy": strategy, "op": "read", "block_bytes": 4096, "qd": 32, "storage": "hot", "pool": "hot", "persistent": True, "touch": False, "rounds": 5, **other}
    ns = 1000 + ADDED_NS[strategy] * (3 if r["pool"] == "cold" and strategy == "copy" else 1) + (0 if r["persistent"] else 100)
    r.setdefault("case", f"{r['storage']}-{r['op']}-{r['block_bytes']}-{r['qd']}-{r['pool']}-{r['persistent']}")
    r.update({"iops": spread(1e9 / ns), "share_of_none": None if strategy == "none" else spread(1000 / ns), "iotlb_hit_rate": spread(0.5) if strategy == "iommu" else None})
    r.update({k: spread(ns / 1000) for k in ("p50_us", "p99_us", "client_cpu_us_per_io", "server_cpu_us_per_io", "cpu_s_per_gib")})
    return {**r, "bytes_copied_per_io": 4096 if strategy == "copy" else 0, "syscalls_per_io": 1, "maps_per_io": 1, "pins_per_io": 0}


def dma():
    cases = [{"op": op, "block_bytes": b, "qd": qd} for op in ("read", "write") for b in (4096, 1 << 20) for qd in (1, 32)] + [{"pool": "cold"}, {"persistent": False}]
    rows = [dma_row(s, **c) for c in cases for s in ADDED_NS]
    name = dma_row("pin")["case"]
    goals = [{"name": f"{s} keeps {must}", "strategy": s, "case": name, "must": must, "got": 1000 / (1000 + ADDED_NS[s]), "met": 1000 / (1000 + ADDED_NS[s]) >= must}
             for s, must in (("pin", 0.97), ("iommu", 0.95), ("copy", 0.5))]
    parts = ("validate", "pin", "unpin", "pin-kernel", "unpin-kernel", "iotlb-hit", "iotlb-miss", "copy-4k-hot", "copy-4k-cold", "iommu-unmap-strict",
             "iommu-unmap-deferred", "mmap-munmap")
    return {"kind": "dma", **COMMON, "rows": rows, "goals": goals, "left_out": [{"strategy": "none", "case": None, "why": "for a test"}],
            "primitives": [{"name": n, "what": "nothing", "ns": spread(10.0 * (i + 1))} for i, n in enumerate(parts)],
            "explanation": [{"case": name, "strategy": s, "parts": ["validate"], "predicted_ns": float(ns), "measured_ns": spread(float(ns))} for s, ns in ADDED_NS.items() if ns]}


def attack():
    rows = []
    for s in ("copy", "validate", "pin", "iommu"):
        for name in ("revoke-reuse", "foreign-bus", "checksum"):
            if name == "foreign-bus" and s != "iommu":
                rows.append({"strategy": s, "attack": name, "attempts": 0, "successes": 0, "stopped": {}, "seed": 7, "note": "has <no> bus addresses"})
                continue
            won = 400 if s == "validate" and name == "revoke-reuse" else 0
            row = {"strategy": s, "attack": name, "attempts": 1000, "successes": won, "stopped": {"refused": 1000 - won}, "seed": 7, "note": ""}
            if won:
                row["won"] = {"changed": 300, "read": 100}
                row["damage"] = {"frame": 3, "offset": 64, "before": "ca na ry", "after": "ca ff ry"}
            rows.append(row)
    return {"kind": "attack", **COMMON, "rows": rows, "attacks": [{"name": n, "text": f"text of {n} <script>"} for n in ("revoke-reuse", "foreign-bus", "checksum")]}


def poll():
    rows = []
    for mode, us in (("interrupt", 40), ("poll", 10), ("adaptive", 12)):
        for rate in (1000, 100000):
            rows.append({"mode": mode, "pattern": "poisson", "rate": rate, "devices": 1, "cores": 2, "rounds": 5, "iops": spread(rate), "p50_us": spread(us),
                         "p99_us": spread(2 * us), "p999_us": spread(3 * us), "cpu": {p: spread(1 / us) for p in ("client", "server", "total")},
                         "notifications_per_request": spread(us / 40), "reached": mode != "interrupt"})
        for cores in (1, 2):
            rows.append({"mode": mode, "pattern": "closed-qd1", "rate": None, "devices": 1, "cores": cores, "rounds": 5, "p50_us": spread(us), "p99_us": spread(us),
                         "iops": spread(100 if mode == "poll" and cores == 1 else 25000), "p999_us": None, "cpu": spread(1), "notifications_per_request": None})
    return {"kind": "poll", **COMMON, "rows": rows, "goals": [{"name": "adaptive keeps up", "must": "≥ 0.95 × poll", "got": 0.9, "least": 0.8, "most": 0.93, "met": False}]}


class Whole(html.parser.HTMLParser):
    """Notes elements that are not closed in their order, ids, and addresses that lead out of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.wrong = [], [], []

    def handle_starttag(self, tag, attrs):
        self.look(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.look(attrs)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def look(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.wrong.append(f"{name}={value}")


def page(name, files, failed=()):
    """(HTML, Markdown, directory) of these files: {name: object or text}."""
    directory = f"{HERE}/{name}"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    for kind, what in files.items():
        with open(f"{directory}/{kind}.json", "w") as f:
            f.write(what if isinstance(what, str) else json.dumps(what))
    path = report.render(directory, list(failed))
    with open(path) as f, open(path[:-5] + ".md") as g:
        text, markdown = f.read(), g.read()
    whole = Whole()
    whole.feed(text)
    assert not whole.wrong and not whole.open, (name, whole.wrong, whole.open)
    assert len(whole.ids) == len(set(whole.ids)), (name, "ids twice")
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert "nan" not in re.findall(r"\b\w+\b", re.sub(r"<svg.*?</svg>", "", text, flags=re.S)), name
    return text, markdown, directory


def choices(directory):
    """{situation: (choice, because)}."""
    rows = report_choice.strategy_rows(load(directory)) + report_choice.waiting_rows(load(directory))
    return {r[0]: (r[1] if isinstance(r[1], str) else r[1].text, r[2]) for r in rows}


SMALL = "Guests that are not trusted, small requests"


def check_whole():
    text, markdown, directory = page("whole", {"dma": dma(), "attack": attack(), "poll": poll()})
    for title in re.findall(r"<h2 id=\"[a-z]+\">(.*?)</h2>", text):
        assert f"## {title}" in markdown, title
    if shutil.which("gnuplot"):
        assert "gnuplot" not in markdown
        pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown)
        assert len(pictures) == text.count("<svg") == 4 + 4 + 2 + 4 + 1, pictures  # no closed-qd32
        for p in pictures:
            assert os.path.getsize(f"{directory}/{p}") > 500, p
    for said in ("no machine", "0000000", "SEED=7", "ca ff ry", "✗ 400 of 1,000", "won: changed 300, read 100; else refused 600", "✓ 0 of 1,000", "has &lt;no&gt; bus addresses", "&lt;script&gt;", "collapses", "did not keep up",
                 "for a test", APART, "nothing: the hole"):
        assert said in text, said
    assert "**Missed**: adaptive keeps up (must ≥ 0.95 × poll, got 0.9), iommu keeps 0.95" not in markdown and "adaptive keeps up (must ≥ 0.95 × poll, got 0.9)" in markdown
    assert choices(directory)[SMALL][0] == "`pin`"
    assert choices(directory)["Guests that are your own, and speed is all"][0] == "`pin`"  # 1 % is no difference


def check_verdicts_follow():
    """The same page with other numbers says other things."""
    d = dma()
    for r in d["rows"]:
        if r["strategy"] == "copy":
            r["share_of_none"] = spread(0.999)
        if r["strategy"] == "pin":
            r["share_of_none"] = spread(0.90)
    d["goals"][0].update(got=0.90, met=False)
    _, markdown, directory = page("slow-pin", {"dma": d, "attack": attack()})
    assert "pin keeps 0.97 (must 0.97, got 0.9)" in markdown and "| pin keeps 0.97 | 0.97 | 0.9 | missed |" in markdown
    assert choices(directory)[SMALL][0] == "`copy`"
    assert choices(directory)["Guests that are your own, and speed is all"][0].startswith("`validate`")
    a = attack()
    next(r for r in a["rows"] if r["strategy"] == "pin" and r["attack"] == "revoke-reuse").update(successes=1)
    _, markdown, directory = page("broken-pin", {"dma": dma(), "attack": a})
    assert "**`pin` lost to revoke-reuse**" in markdown and "| attacks: `pin` stops all | 0 successes | 1 success | missed |" in markdown
    assert "pin" not in choices(directory)[SMALL][0] and "`pin`, which lost" in choices(directory)[SMALL][1]
    a = attack()
    for r in a["rows"]:
        r["successes"] = 0
    _, markdown, _ = page("no-hole", {"attack": a})
    assert "`validate` lost to nothing in this run" in markdown and "| attacks: `validate` shows its hole | at least 1 success | 0 successes | missed |" in markdown
    a["rows"] = [r for r in a["rows"] if r["strategy"] != "iommu"]
    _, _, directory = page("untried", {"dma": dma(), "attack": a})
    assert "`iommu` not tried against every attack" in choices(directory)[SMALL][1]


def check_spread():
    """What the rounds do not tell apart is not called different."""
    near, wide = figure(spread(1.0, 0.3), 5), figure(spread(1.1, 0.3), 5)
    assert clearly(near, wide) == 0 and clearly(figure(spread(1.1), 5), figure(spread(1.0), 5)) == 1 and clearly(figure(spread(1.0), 5), figure(spread(1.1), 5)) == -1
    assert clearly(figure(1.0), figure(1.05)) == 0, "one round tells little"


def check_missing():
    text, _, directory = page("nothing", {})
    assert text.count("Not measured in this run") >= 3 and "there is no dma.json" in text
    assert choices(directory)[SMALL][0] == NOT_MEASURED
    d = dma()
    d["rows"] = [r for r in d["rows"] if r["strategy"] != "iommu" and not (r["strategy"] == "copy" and r["qd"] == 32)]
    for r in d["rows"]:
        if r["strategy"] == "pin" and r["qd"] == 32 and r["op"] == "read":
            r["iops"] = r["p99_us"] = None
    text, markdown, _ = page("holes", {"dma": d}, [("poll", "was stopped after 1 s")])
    assert "`make bench-poll` was stopped after 1 s" in markdown
    row = next(line for line in markdown.split("\n") if line.startswith("| `pin` |"))
    assert row.count(NOT_MEASURED) == 2, row
    assert NOT_MEASURED in text
    for name, cut in (("cut", json.dumps(dma())[:5000]), ("list", "[]"), ("empty", ""), ("null", "null")):
        _, markdown, _ = page(name, {"dma": cut, "poll": poll()})
        assert "Not part of this run: dma.json" in markdown, name


def damage(x, rng):
    """Some value of a tree replaced by what does not belong there, or gone."""
    junk = (None, "", "<b>", -1, 0, 1e400, [], {}, True, [[1]], "x" * 300)
    if isinstance(x, dict) and x:
        k = rng.choice(list(x))
        if rng.random() < 0.3:
            x[k] = rng.choice(junk)
        elif rng.random() < 0.2:
            del x[k]
        else:
            damage(x[k], rng)
    elif isinstance(x, list) and x:
        i = rng.randrange(len(x))
        if rng.random() < 0.1:
            x[i] = rng.choice(junk)
        else:
            damage(x[i], rng)


def check_damaged_and_without_gnuplot():
    path, os.environ["PATH"] = os.environ["PATH"], "/nonexistent"
    try:
        text, _, _ = page("no-gnuplot", {"dma": dma(), "attack": attack(), "poll": poll()})
        assert "gnuplot is not installed" in text and text.count("<svg") == 4
        whole = {"dma": dma(), "attack": attack(), "poll": poll()}
        for seed in range(60):
            rng, files = random.Random(seed), copy.deepcopy(whole)
            for _ in range(12):
                damage(files[rng.choice(list(files))], rng)
            try:
                page("damaged", files)
            except Exception:
                print(f"seed {seed}", file=sys.stderr)
                raise
    finally:
        os.environ["PATH"] = path


def check_command():
    """As the target calls it: the page of a directory that is there; a wrong word is refused with a sentence."""
    program = os.path.join(os.path.dirname(__file__), "..", "bench", "report.py")
    call = lambda **e: subprocess.run([sys.executable, program], env={**os.environ, **e}, capture_output=True, text=True)
    said = call(ONLY="render", RESULTS=f"{HERE}/whole")
    assert said.returncode == 0 and said.stdout.split() == [f"{HERE}/whole/report.html", f"{HERE}/whole/report.md"], said
    said = call(ONLY="rendr")
    assert said.returncode == 1 and "ONLY names rendr" in said.stderr, said
    said = call(ONLY="render", RESULTS=f"{HERE}/absent")
    assert said.returncode == 1 and "is not there" in said.stderr, said


for check in (check_whole, check_verdicts_follow, check_spread, check_missing, check_damaged_and_without_gnuplot, check_command):
    check()
