# SPDX-License-Identifier: MIT
"""bench/report_data.py: what the three instruments left behind, read with care: any file may be missing, cut short, of a
run that measured less, and any figure in it may be null. What is not there is None here and "not measured" on the page,
never zero.

A figure is a number or {"median", "least", "most"}; Figure holds both.
"""
import json, math, os
from dataclasses import dataclass

KINDS = ("dma", "attack", "poll")  # RESULTS/<kind>.json
STRATEGIES = ("none", "copy", "validate", "pin", "pin-each", "iommu")
OFFERED = ("copy", "validate", "pin", "iommu")  # a disk can have these; the others are the bench's
MODES = ("interrupt", "poll", "adaptive")
NOT_MEASURED = "not measured"
WORDS = ("strategy", "op", "storage", "pool", "case", "attack", "mode", "pattern")  # what rows are found by
NUMBERS = ("block_bytes", "qd", "devices", "cores", "rate")
RANGE_OVER_DEVIATION = {2: 1.13, 3: 1.69, 4: 2.06, 5: 2.33, 7: 2.70, 9: 2.97, 11: 3.17, 15: 3.47, 20: 3.73}  # of n normal samples
ONE_ROUND = 0.05
APART_LEAST = 0.02  # what differs by less is called equal, however sure
APART = "differ by more than 2 % and by more than twice the standard error that the range of the rounds suggests"


@dataclass(frozen=True)
class Figure:
    """The median of so many rounds, with the least and the most."""

    median: float
    least: float
    most: float
    rounds: int = 1
    doubt: float = None  # the error of what was measured once

    def error(self):
        """The standard error of the median, as the range of the rounds suggests it; of one round: a guess."""
        if self.rounds < 2:
            return abs(self.median) * ONE_ROUND if self.doubt is None else self.doubt
        n = min(self.rounds, max(RANGE_OVER_DEVIATION))
        wide = RANGE_OVER_DEVIATION[max(k for k in RANGE_OVER_DEVIATION if k <= n)]
        return 1.25 * (self.most - self.least) / wide / self.rounds ** 0.5


def number(x):
    """A finite number, or None."""
    good = isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
    return float(x) if good else None


def figure(x, rounds=1, doubt=None):
    """Whatever a JSON file says where a figure belongs: a Figure, or None."""
    if isinstance(x, dict):
        m = number(x.get("median"))
        if m is None:
            return None
        least, most = number(x.get("least")), number(x.get("most"))
        return Figure(m, m if least is None else min(least, m), m if most is None else max(most, m), rounds, doubt)
    m = number(x)
    return None if m is None else Figure(m, m, m)


def of(row, name):
    """A row's figure; None where there is no row or no figure."""
    return figure(row.get(name), int(number(row.get("rounds")) or 1)) if row else None


def clearly(a, b):
    """1: a is larger and the rounds tell it, -1: smaller, 0: no telling. APART says when."""
    far, mean = a.median - b.median, (abs(a.median) + abs(b.median)) / 2
    if abs(far) <= APART_LEAST * mean or abs(far) <= 2 * (a.error() ** 2 + b.error() ** 2) ** 0.5:
        return 0
    return 1 if far > 0 else -1


def sound(row):
    """What a row is found by is a word or a number, where it is there: other rows are passed over."""
    word = lambda x: x is None or isinstance(x, str)
    return all(word(row.get(k)) for k in WORDS) and all(row.get(k) is None or number(row[k]) is not None and row[k] >= 0 for k in NUMBERS)


class Result:
    """One instrument's file."""

    def __init__(self, kind, directory):
        self.kind, self.path, self.why, self.all = kind, os.path.join(directory, f"{kind}.json"), None, {}
        try:
            with open(self.path) as f:
                everything = json.load(f)
            if isinstance(everything, dict):
                self.all = everything
            else:
                self.why = f"{kind}.json holds no object"
        except FileNotFoundError:
            self.why = f"there is no {kind}.json"
        except (OSError, ValueError) as e:
            self.why = f"{kind}.json cannot be read: {e}"
        self.rows = [r for r in self.objects("rows") if sound(r)]

    def objects(self, name):
        """The objects of a list of the file; whatever else stands there is passed over."""
        all_ = self.all.get(name)
        return [x for x in all_ if isinstance(x, dict)] if isinstance(all_, list) else []

    def pick(self, **want):
        """The rows in which all these keys have these values."""
        return [r for r in self.rows if all(r.get(k) == v for k, v in want.items())]

    def first(self, **want):
        return next(iter(self.pick(**want)), None)

    def values(self, name):
        """The different values of a key, in the order of the rows."""
        return list(dict.fromkeys(r[name] for r in self.rows if isinstance(r.get(name), (str, int, float)) and r[name] is not None))

    def machine(self):
        return self.all["machine"] if isinstance(self.all.get("machine"), dict) else {}

    def goals(self):
        return [g for g in self.objects("goals") if g.get("name")]


@dataclass
class Results:
    dma: Result
    attack: Result
    poll: Result
    directory: str

    def each(self):
        return (self.dma, self.attack, self.poll)

    def common(self, name):
        """What the files agree on, or what each has."""
        said = {r.kind: r.all[name] for r in self.each() if r.all.get(name) not in (None, "")}
        different = list(dict.fromkeys(map(str, said.values())))
        if len(different) <= 1:
            return different[0] if different else None
        return ", ".join(f"{v} ({k})" for k, v in said.items())

    def machine(self):
        return next((r.machine() for r in self.each() if r.machine()), {})

    def quick(self):
        return any(r.all.get("quick") is True for r in self.each())


def load(directory):
    return Results(*(Result(k, directory) for k in KINDS), directory)


def strategies_of(result):
    """Those with rows, ours in their order, then what we do not know."""
    there = result.values("strategy")
    return [s for s in STRATEGIES if s in there] + [str(s) for s in there if s not in STRATEGIES]


# Numbers as text.


def ns_text(ns):
    return f"{ns / 1000:.1f} µs" if ns >= 2000 else f"{ns:.0f} ns" if ns >= 10 else f"{ns:.1f} ns"


def us_text(us):
    return f"{us:.0f} µs" if us >= 100 else f"{us:.1f} µs" if us >= 10 else f"{us:.2f} µs"


def count_text(n):
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.0f}k" if n >= 1e4 else f"{n / 1e3:.1f}k" if n >= 1e3 else f"{n:.0f}"


def plain_text(x):
    return "0" if x == 0 else f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.3g}"


def rate_text(x):
    """Of things that are counted by request: how often exactly once in thousands of requests says nothing."""
    return "0" if x == 0 else "<0.001" if 0 < x < 0.001 else f"{x:.3f}" if x < 0.1 else plain_text(x)


def bytes_text(n):
    return f"{n >> 20} MiB" if n >= 1 << 20 else f"{n >> 10} KiB" if n >= 1 << 10 else f"{n} bytes"


def listed(words):
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
