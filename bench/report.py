#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/report.py: runs the instruments (make bench-dma, attack-dma, bench-poll), one after the other as they would disturb each
other, and makes one page of what they measured: report.html, which needs nothing else, and report.md with its pictures beside it.
Everything on the page is computed from the JSON files of one directory; an instrument that failed is named there, and what it
left behind is shown.

  QUICK=1        a look in under two minutes; otherwise under 15. An instrument is told by REPORT_SECONDS how long it may take, and
                 is ended when it takes longer
  ONLY=render    no measurement: the page of what is in RESULTS. ONLY=dma, attack, poll, by commas: those are run
  RESULTS        where to; otherwise bench/results/report-DATE-COMMIT/ for a full run, bench/results/latest/ for others
"""
import os, signal, subprocess, sys, time

sys.dont_write_bytecode = True
import machine, report_attack, report_choice, report_cost, report_data, report_diagram, report_poll
from driver import OTHERS_MOST, QUICK, results_directory
from report_page import Page

TARGETS = {"dma": "bench-dma", "attack": "attack-dma", "poll": "bench-poll"}
SHARES = {"dma": 0.56, "attack": 0.15, "poll": 0.29}  # of the time: what is kept for those that come after
TOLD = 0.85  # of what it may take: a busy machine makes it late, and what is ended lacks what was to follow
FULL_SECONDS, QUICK_SECONDS = 14.5 * 60, 112
GRACE_SECONDS = 5  # between asking an instrument to end and ending it


def wanted():
    """The instruments to run."""
    only = [k for k in os.environ.get("ONLY", "").split(",") if k]
    unknown = [k for k in only if k not in (*TARGETS, "render")]
    if unknown:
        sys.exit(f"report.py: ONLY names {unknown[0]}; it is render, dma, attack or poll")
    return [k for k in TARGETS if not only or k in only]


def directory_of(kinds):
    there = os.environ.get("RESULTS") or "bench/results/latest"
    if not kinds and not os.path.isdir(there):
        sys.exit(f"report.py: {there} is not there; RESULTS names a directory with {', '.join(k + '.json' for k in TARGETS)}")
    return os.path.abspath(results_directory("report", len(kinds) == len(TARGETS) and not QUICK, machine.commit()))


def run_one(kind, directory, seconds):
    """None, or why it did not end well."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ONLY")}
    environment.update({"RESULTS": directory, "REPORT_SECONDS": f"{seconds * TOLD:.0f}"})
    environment.pop("QUICK", None)
    command = ["make", "--no-print-directory", TARGETS[kind], f"RESULTS={directory}", *(["QUICK=1"] if QUICK else [])]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        status = f"was stopped after {seconds:.0f} s"
    finally:
        end(process)
    return None if status == 0 else status if isinstance(status, str) else f"ended with status {status}"


def end(process):
    """Its whole group, which is ours: the instrument writes what it has, and a server that it started does not stay behind. make ends
    before those that it started do."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            process.poll()
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            number = 0  # is anybody there?
            time.sleep(0.05)


def run(kinds, directory):
    """[(kind, why it failed)]."""
    start, budget, failed = time.monotonic(), QUICK_SECONDS if QUICK else FULL_SECONDS, []
    for i, kind in enumerate(kinds):
        for old in (f"{directory}/{kind}.json",):
            if os.path.exists(old):
                os.unlink(old)  # or the page would show an older run as this one
        left = budget - (time.monotonic() - start)
        seconds = left - budget * sum(SHARES[k] for k in kinds[i + 1:])
        print(f"report: {TARGETS[kind]}, {i + 1} of {len(kinds)}, at most {seconds / 60:.1f} of {left / 60:.1f} minutes left", file=sys.stderr, flush=True)
        why = run_one(kind, directory, seconds)
        if why:
            failed.append((kind, why))
            print(f"report: make {TARGETS[kind]} {why}", file=sys.stderr, flush=True)
    return failed


def opening(results, failed):
    page = Page("Copy, validate, pin, IOMMU",
                "What four ways of moving a guest's data cost, and what each protects from: measured on the same driver, in the same run, by a cost bench and an attack bench.")
    if results.quick():
        page.note("A quick run: few rounds of moments each. It shows that everything works; for figures to rely on run `make report` without `QUICK`.")
    others = report_data.number(results.dma.machine().get("others' processors"))
    if others is not None and others > OTHERS_MOST:
        page.note(f"Other programs used {others:.1f} processors meanwhile, and ratios move by more than the goals' margins then: this run shows that everything works, and decides little.")
    for kind, why in failed:
        page.note(f"`make {TARGETS[kind]}` {why}; " + ("it left nothing behind." if getattr(results, kind).why else "what it left behind is shown."))
    for r in results.each():
        if r.why:
            page.note(f"Not part of this run: {r.why}.")
    page.section("question", "The question")
    page.text("A privileged process does I/O for guests that it does not trust. A guest names pages of its own memory; the disk is to read from them or to write to them. "
              "Between the moment in which dom0 checks that the guest may, and the moment in which the data has moved, the guest is free to do what it likes: take the page back, "
              "point its grant elsewhere, change the data. **What does it cost to be safe from that, and from what exactly is one safe then?**",
              "The four answers here are rows of one table behind one interface, and a disk is switched from one to another while it runs. So they are compared on the same "
              "driver, the same rings, the same requests, and nothing else differs.")
    page.section("short", "In short")
    page.points(report_choice.short(results))
    report_choice.goals_table(results, page)
    return page


def strategies(page):
    page.section("strategies", "The four strategies")
    said = {
        "copy": "`copy`: the data goes through a buffer of dom0's, registered with io_uring once. The guest's page is touched only while it is copied: before the I/O for a write, after it for a read.",
        "validate": "`validate`: owner, grant and range are checked, then the I/O goes straight to the page with nothing held. Between check and use lies the textbook's hole, kept on purpose: "
                    "dom0 serves it only where it is asked for by name, and warns.",
        "pin": "`pin`, the default: checked likewise, but the grant's entry and the frame are pinned until the I/O ends. A revocation is told “busy”, memory that is given back goes only "
               "after the last unpin. The kernel pins an extent once, so a request walks no page tables.",
        "iommu": "`iommu`: the guest is given bus addresses, maps its buffers once and names bus addresses in requests. They are translated and checked when they are used; an unmap waits for the "
                 "I/O that uses the page. What is not mapped faults, and fails that request alone.",
    }
    page.figures([(f"strategy-{name}", report_diagram.draw(name), text, None) for name, text in said.items()])


def limits(page):
    page.section("limits", "What the numbers do not mean")
    page.points([
        "**This is a model in user space.** The “device” is the kernel's io_uring, which honours what dom0 tells it. The software IOMMU checks what dom0 submits; it cannot stop "
        "hardware from doing what nobody submitted. Only an IOMMU in silicon stops a device that lies, and only there does a lookup cost what a real IOTLB costs.",
        "**Zero successes are not a proof.** They are so many attempts, with these seeds, against this code; the mutants in the tests show that the instrument sees a pin, a deferral, an invalidation or a "
        "copy that is missing.",
        "**Shares, not speeds, carry over.** Requests per second are those of this machine and of the page cache, not of a disk or of a network. A slower storage hides more of a strategy's cost, a faster one less.",
        "**Rounds differ.** Small print is the least and the most of the rounds. Two processes share the processors with whatever else runs. Two figures are called different here where they "
        f"{report_data.APART}; the others stand as equal.",
        "**Latencies of one request at a time** are mostly those of waking the other end, which a virtual machine's scheduler decides.",
        "**The primitives are measured alone**, in a loop, with warm branch predictors; in a request they share caches with everything else. Their sum is a lower bound more than a forecast.",
        "**`copy` here copies once.** A network path that copies on both sides, or a cache that is shared with busy neighbours, pays more.",
    ])


def left_out(results, page):
    """What an instrument says that it could not measure."""
    out = []
    for r in results.each():
        for x in r.objects("left_out"):
            what = [str(x[k]) for k in ("strategy", "mode", "attack", "case", "load") if x.get(k)]
            out.append(f"{r.kind}: {', '.join(what) or 'something'}: {x.get('why', 'no reason given')}")
    if out:
        page.heading("Left out")
        page.points(out[:20] + ([f"… and {len(out) - 20} more"] if len(out) > 20 else []))


def value_text(v):
    return ", ".join(map(str, v)) if isinstance(v, list) else str(v)


def about(results, page):
    page.section("run", "The run, and how to repeat it")
    facts = [("commit", results.common("commit")), ("date", results.common("date")), ("seed", results.common("seed")), ("rounds", results.common("rounds")),
             ("seconds of one measurement", results.common("seconds_each"))]
    shown = {k for k, _ in facts}
    facts += [(str(k), value_text(v)) for k, v in results.machine().items() if k not in shown and not isinstance(v, dict)]
    page.table(["", ""], [[k, v] for k, v in facts if v not in (None, "")], "Machine and run")
    seed = results.dma.all.get("seed") or results.attack.all.get("seed") or results.poll.all.get("seed")
    again = [f"SEED={seed}"] if seed is not None else []
    page.listing("\n".join(["make report " + " ".join(again + (["QUICK=1"] if results.quick() else [])), "make report ONLY=render RESULTS=DIR    # this page from the JSON files in DIR",
                            "make bench-dma; make attack-dma; make bench-poll    # one instrument each"]))
    there = [f"`{r.kind}.json`" for r in results.each() if not r.why]
    page.text(f"Every figure stands in {report_data.listed(there)}, in the directory of this page." if there else "")


def render(directory, failed):
    results = report_data.load(directory)
    page = opening(results, failed)
    strategies(page)
    report_cost.cost_section(results.dma, page)
    report_cost.why_section(results.dma, page)
    report_attack.section(results.attack, page)
    report_poll.section(results.poll, page)
    report_choice.section(results, page)
    limits(page)
    about(results, page)
    left_out(results, page)
    return page.write(directory)


def main():
    kinds = wanted()
    directory = directory_of(kinds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("report.py: terminated"))
    failed = run(kinds, directory)
    path = render(directory, failed)
    print(f"{path}\n{path[:-5]}.md")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
