# SPDX-License-Identifier: MIT
"""bench/report_chart.py: the report's pictures by gnuplot: bars in groups, and lines. A chart is data here; what it shows is
decided in report_cost.py and report_poll.py. Each is as wide as a phone held upright makes legible, and two fit side by side on
a desk.

Colours are of Okabe and Ito's set, which those see apart who do not see all colours, the same for a strategy in all pictures;
marks and dashes differ too. What was not measured is written where its bar would stand.
"""
import math, re, subprocess, tempfile

COLOURS = {
    "none": "#666666", "copy": "#0072B2", "validate": "#D55E00", "pin": "#009E73", "pin-each": "#E69F00", "iommu": "#AA4499",
    "interrupt": "#0072B2", "poll": "#D55E00", "adaptive": "#009E73", "predicted": "#888888", "client": "#56B4E9", "server": "#0072B2",
}
MARKS = {"none": 1, "copy": 5, "validate": 9, "pin": 7, "pin-each": 11, "iommu": 13, "interrupt": 5, "poll": 9, "adaptive": 7}
DASHES = {"none": 3, "pin-each": 2, "interrupt": 2, "poll": 4}
OTHER = "#000000"


def colour(name):
    return COLOURS.get(name, OTHER)


def quoted(text):
    """A string of gnuplot's; a line break in it is one on the picture."""
    return '"' + str(text).replace("\\", "/").replace('"', "''").replace("\n", "\\n") + '"'


def decade(x):
    """The power of ten at or below x."""
    return 10.0 ** math.floor(math.log10(x))


def ticks(name, most):
    """Of a linear axis from 0: at most seven, of round numbers, written shortly."""
    step = next(m * decade(most) / 10 for m in (1, 2, 5, 10, 20, 50) if most / (m * decade(most) / 10) <= 7)
    short = lambda v: f"{v / 1e6:g}M" if most >= 2e6 or v >= 1e6 else f"{v / 1e3:g}k" if most >= 1e4 and v else f"{v:g}"
    return f"set {name}tics (" + ", ".join(f"{quoted(short(i * step))} {i * step:g}" for i in range(int(most / step) + 2)) + ")"


def head(title, y_label, x_label="", size=(480, 380)):
    return [
        f"set terminal svg size {size[0]},{size[1]} fixed font 'sans-serif,14' background 'white' noenhanced",
        f"set title {quoted(title)} font ',15'", f"set ylabel {quoted(y_label)}", f"set xlabel {quoted(x_label)} offset 0,0.4",
        "set border 3 lc rgb '#333333'", "set tics nomirror out textcolor rgb '#1a1a1a'", "set grid ytics lc rgb '#dddddd' lt 1",
        "set key below horizontal samplen 2 spacing 1.15 font ',14'",
    ]


def block(name, lines):
    return [f"${name} << EOD", *lines, "EOD"]


class Bars:
    """Groups of bars, one bar of each series in a group. put() what was measured, draw() the rest as not measured."""

    def __init__(self, title, y_label, groups, series, form="{:.2f}".format, log=False):
        self.title, self.y_label, self.groups, self.series = title, y_label, list(groups), list(series)
        self.form, self.log = form, log
        self.values, self.must, self.colours, self.said = {}, {}, {}, {}

    def put(self, group, name, f, said=None):
        """`said`: what stands at the bar, where that is not its height."""
        if f is not None:
            self.values[group, name] = f
            self.said[group, name] = said or self.form(f.median)

    def goal(self, group, name, must):
        self.must[group, name] = must

    def empty(self):
        return not self.values

    def script(self):
        width = 0.8 / len(self.series)
        place = lambda g, s: self.groups.index(g) - 0.4 + width * (self.series.index(s) + 0.5)
        tallest = max([f.median for f in self.values.values()] + list(self.must.values()))
        most = tallest if self.log else min(max(f.most for f in self.values.values()), tallest * 1.5)  # a wild round leaves the picture legible
        most = max(most, tallest)
        positive = [f.least for f in self.values.values() if f.least > 0]
        floor = decade(min(positive)) / 2 if self.log and positive else 0
        two_lines = any("\n" in g for g in self.groups)
        out = head(self.title, self.y_label, " " if two_lines else "")
        out += ["set clip two", f"set xrange [-0.6:{len(self.groups) - 0.4}]", f"set boxwidth {width * 0.88:g}", "set style fill solid 0.85 noborder"]
        out += ["set logscale y", f"set yrange [{floor:g}:{most * 4:g}]"] if self.log else [f"set yrange [0:{most * 1.22:g}]"]
        out += ["set xtics (" + ", ".join(f"{quoted(g)} {i}" for i, g in enumerate(self.groups)) + ") scale 0"]
        out.append(("set format y '%.0s%c'" if most >= 10000 else "set format y '%g'") if self.log else ticks("y", most))
        if len(self.series) == 1:
            out.append("unset key")
        many = len(self.groups) * len(self.series) > 8
        plots, labels = [], []
        for i, s in enumerate(self.series):
            mine = [(g, self.values[g, s]) for g in self.groups if (g, s) in self.values]
            rows = [f"{place(g, s):g} {f.median:g} {f.least:g} {f.most:g}" for g, f in mine]
            out += block(f"b{i}", rows or ["0 NaN NaN NaN"])
            tint = self.colours.get(s) or colour(s)
            plots.append(f"$b{i} using 1:2 with boxes lc rgb '{tint}' title {quoted(s)}")
            if any(f.most > f.least for _, f in mine):
                plots.append(f"$b{i} using 1:3:(0):($4-$3) with vectors nohead lc rgb '#1a1a1a' lw 1.4 notitle")
            labels += [f'{place(g, s):g} {min(f.most, most * (1.6 if self.log else 1)):g} "{self.said[g, s]}"' for g, f in mine]
        out += block("labels", labels)
        plots.append("$labels using 1:2:3 with labels offset " + ("0,0.7 rotate by 0" if not many else "0,0.5 left rotate by 90") +
                     f" font ',{13 if not many else 12}' textcolor rgb '#1a1a1a' notitle")
        for g in self.groups:
            for s in self.series:
                if (g, s) not in self.values:
                    at = floor * 1.3 if self.log else most * 0.02
                    out.append(f"set label 'not measured' at {place(g, s):g},{at:g} rotate by 90 font ',12' textcolor rgb '#666666'")
        for i, ((g, s), must) in enumerate(self.must.items()):
            x = place(g, s)
            out.append(f"set arrow from {x - width / 2:g},{must:g} to {x + width / 2:g},{must:g} nohead lw 2.5 lc rgb '#000000' front")
        return out + ["plot " + ", ".join(plots)]


class Lines:
    """A line a series, with the spread where there is one."""

    def __init__(self, title, y_label, x_label, log_x=True, log_y=False, x_ticks=None, y_most=None):
        self.title, self.y_label, self.x_label = title, y_label, x_label
        self.log_x, self.log_y, self.x_ticks, self.y_most = log_x, log_y, x_ticks, y_most
        self.points = {}

    def put(self, name, x, f):
        if f is not None and x is not None and (x > 0 or not self.log_x) and (f.median > 0 or not self.log_y):
            self.points.setdefault(name, []).append((x, f))

    def empty(self):
        return not self.points

    def script(self):
        out = head(self.title, self.y_label, self.x_label)
        out += ["set logscale x"] * self.log_x + ["set logscale y"] * self.log_y
        xs = [x for points in self.points.values() for x, _ in points]
        most = max(f.most for points in self.points.values() for _, f in points)
        out.append(f"set xrange [{min(xs) / 1.25:g}:{max(xs) * 1.25:g}]" if self.log_x else "set offsets graph 0.05, graph 0.05, 0, 0")
        if not self.log_y:
            out.append(f"set yrange [0:{self.y_most or most * 1.1 or 1:g}]")
        out.append("set format y '%g'" if self.log_y or not most else ticks("y", self.y_most or most))
        if self.x_ticks:
            out.append("set xtics (" + ", ".join(f"{quoted(t)} {x:g}" for x, t in self.x_ticks) + ")")
        plots = []
        for i, (name, points) in enumerate(self.points.items()):
            out += block(f"l{i}", [f"{x:g} {f.median:g} {f.least:g} {f.most:g}" for x, f in sorted(points, key=lambda p: p[0])])
            style = f"lc rgb '{colour(name)}' lw 2 dt {DASHES.get(name, 1)} pt {MARKS.get(name, 3)} ps 0.8"
            plots.append(f"$l{i} using 1:2 with linespoints {style} title {quoted(name)}")
            if any(f.most > f.least for _, f in points):
                plots.append(f"$l{i} using 1:3:(0):($4-$3) with vectors nohead lc rgb '{colour(name)}' lw 1.4 notitle")
        return out + ["plot " + ", ".join(plots)]


class Prices:
    """One horizontal bar a row, on a logarithmic scale: [(name, ns, colour)], the first on top."""

    def __init__(self, title, x_label, rows, form):
        self.title, self.x_label, self.rows, self.form = title, x_label, rows, form

    def empty(self):
        return not self.rows

    def script(self):
        rows = self.rows[::-1]
        least, most = min(ns for _, ns, _ in rows), max(ns for _, ns, _ in rows)
        floor = decade(least * 0.9)
        out = head(self.title, "", self.x_label, (480, 110 + 25 * len(rows)))
        out += ["unset key", "set logscale x", f"set xrange [{floor:g}:{most * 5:g}]", f"set yrange [-0.6:{len(rows) - 0.4}]", "unset grid",
                "set grid xtics lc rgb '#dddddd' lt 1", "set style fill solid 0.85 noborder", "set format x '%.0s%c'",
                "set ytics (" + ", ".join(f"{quoted(n)} {i}" for i, (n, _, _) in enumerate(rows)) + ") scale 0"]
        out += block("p", [f"{floor:g} {i} {floor:g} {ns:g} {i - 0.36:g} {i + 0.36:g} {int(c[1:], 16)}" for i, (_, ns, c) in enumerate(rows)])
        out += block("t", [f'{ns:g} {i} "{self.form(ns)}"' for i, (_, ns, _) in enumerate(rows)])
        return out + ["plot $p using 1:2:3:4:5:6:7 with boxxyerror lc rgb variable, $t using 1:2:3 with labels left offset 0.6,0 font ',13'"]


def draw(name, chart):
    """(SVG, None), or (None, a sentence)."""
    if chart.empty():
        return None, "Not measured in this run: there is nothing to draw here."
    with tempfile.NamedTemporaryFile(suffix=".svg") as f:
        script = chart.script()
        script.insert(1, f"set output {quoted(f.name)}")
        try:
            p = subprocess.run(["gnuplot"], input="\n".join([*script, "unset output", ""]), capture_output=True, text=True)
        except OSError:
            return None, "No picture: gnuplot is not installed (on Debian: apt-get install gnuplot-nox). The tables have its numbers."
        if p.returncode:
            return None, f"No picture: gnuplot said: {p.stderr.strip()[:300]}"
        with open(f.name) as g:
            return clean(name, chart.title, g.read()), None


def clean(name, title, svg):
    """An element that can stand in a page beside others: no prologue, size by its view box, names of its own."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<(title|desc)>.*?</\1>", "", svg, flags=re.S)
    svg = re.sub(r"""\bid=(["'])""", rf"id=\g<1>{name}-", svg)
    svg = re.sub(r"(xlink:href=['\"]#|url\(#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"<svg", f'<svg role="img" aria-label="{attribute(title)}"', svg, count=1)
    return svg.strip() + "\n"


def attribute(text):
    return str(text).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
