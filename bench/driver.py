# SPDX-License-Identifier: MIT
"""bench/driver.py: what drivers of measurements have in common: which cases are wanted, how far they are, whether there is time for
the next, and where results go."""
import fnmatch, os, signal, sys, time

QUICK = os.environ.get("QUICK", "") not in ("", "0")
BUDGET = float(os.environ.get("REPORT_SECONDS") or 0)  # what `make report` lets an instrument and its build have; 0: no limit
OTHERS_MOST = 0.1  # processors; beyond it ratios move by more than the goals' margins
OTHERS_TEXT = "Others used {:.1f} processors meanwhile: this run shows that the program works, and decides nothing."


def picked(names, variable, otherwise=None):
    """Those that a pattern of the variable names, whole or up to a dash; `otherwise`, or all, where it is not set."""
    patterns = [p for p in os.environ.get(variable, "").split(",") if p]
    good = lambda n: any(fnmatch.fnmatch(n, p) or fnmatch.fnmatch(n, p + "-*") for p in patterns)
    return [n for n in names if good(n)] if patterns else list(otherwise or names)


class Ended(Exception):
    """SIGTERM: nothing more is measured. What was measured is still written."""


def may_be_ended():
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Ended("the run was ended")

    signal.signal(signal.SIGTERM, end)


def out_of_time(start):
    """Of a budget: what comes yet is left out, and what was measured can be written."""
    return bool(BUDGET) and time.monotonic() - start > BUDGET * 0.85


class Progress:
    """A line on stderr for each case: how many there are, how long the rest takes. A case has as many steps as its rounds."""

    def __init__(self, cases, steps, step_seconds=0):
        self.cases, self.steps, self.step_seconds, self.case_number, self.done, self.begin = cases, steps, step_seconds, 0, 0, time.monotonic()

    def case(self, name):
        self.case_number += 1
        each = (time.monotonic() - self.begin) / self.done if self.done else self.step_seconds
        left = each * (self.steps - self.done)
        text = f", {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left" if left else ""
        print(f"[{self.case_number}/{self.cases}] {name}{text}", file=sys.stderr, flush=True)

    def step(self):
        self.done += 1


def results_directory(kind, whole, commit):
    """RESULTS; else one of its own for a run of everything, and `latest` for others."""
    name = f"{kind}-" + time.strftime("%Y-%m-%d-%H%M-") + commit if whole else "latest"
    directory = os.environ.get("RESULTS") or f"bench/results/{name}"
    os.makedirs(directory, exist_ok=True)
    return directory
