# SPDX-License-Identifier: MIT
"""bench/block_picture.py: figures of cases with several queue depths, as lines over the depth, by gnuplot: block.svg. A peer has
the same colour everywhere; those of others are dashed."""
import subprocess

PANELS = (  # cases, title, figure, label of the axis
    ("hot-read", "page cache, 4 KiB random read", "iops", "requests/s"),
    ("hot-write", "page cache, 4 KiB random write", "iops", "requests/s"),
    ("null", "no bytes: the transport alone", "iops", "requests/s"),
    ("hot-read", "page cache, 4 KiB random read: price", "cpu_us_per_io", "CPU us a request"),
    ("hot-read", "page cache, 4 KiB random read: latency", "p99_us", "p99 us"),
    ("direct-read", "O_DIRECT, 4 KiB random read: price", "cpu_us_per_io", "CPU us a request"),
)
COLOURS = {
    "floor": "#000000", "domzero-poll": "#d62728", "domzero-adaptive": "#1f77b4", "domzero-interrupt": "#2ca02c", "domzero-copy": "#9467bd",
    "qsd-poll": "#ff7f0e", "qsd-iothread": "#bcbd22", "qsd-interrupt": "#8c564b", "qemu-nbd": "#7f7f7f", "nbdkit": "#17becf",
}
DEPTHS = (1, 8, 32, 128)


def head(directory, info):
    title = f"domzero, block: {info['commit']}, {info['date'][:16]}, {info['cpu']}, Linux {info['kernel']}, {info['rounds']} rounds"
    return [
        "set terminal svg size 1500,1000 font 'sans,11' background 'white' noenhanced",
        f"set output '{directory}/block.svg'", f'set multiplot layout 2,3 title "{title}"', "set xlabel 'requests in flight'", "set logscale xy",
        f"set xtics ({','.join(map(str, DEPTHS))})", "set xrange [0.7:180]", "set grid ytics lc rgb '#dddddd'", "set key outside below maxcols 3 font ',9'",
    ]


def panel(number, mine, figure):
    """Data and plot of one panel: the median, and for IOPS the least and the most."""
    data, plots = [], []
    for i, peer in enumerate(dict.fromkeys(r["peer"] for r in mine)):
        block = f"$d{number}_{i}"
        points = sorted((r["qd"], r[figure], r["iops_min"], r["iops_max"]) for r in mine if r["peer"] == peer)
        data += [f"{block} << EOD", *(" ".join(f"{x:g}" for x in p) for p in points), "EOD"]
        ours = peer.startswith("domzero")
        style = f"lc rgb '{COLOURS[peer]}' lw {2 if ours else 1.5}" + ("" if ours or peer == "floor" else " dt 2")
        plots.append(f"{block} using 1:2 with linespoints {style} pt 7 ps 0.5 title '{peer}'")
        if figure == "iops":
            plots.append(f"{block} using 1:2:3:4 with yerrorbars lc rgb '{COLOURS[peer]}' pt -1 notitle")
    return [*data, "plot " + ", ".join(plots)]


def draw(directory, info, rows):
    """A sentence where there is no picture, else None."""
    script, drawn = head(directory, info), 0
    for prefix, title, figure, label in PANELS:
        mine = [r for r in rows if r["case"].startswith(prefix + "-qd") and r[figure]]
        if not mine:
            script.append("set multiplot next")
            continue
        drawn += 1
        script += [f"set title '{title}'", f"set ylabel '{label}'", "set format y '%.0s%c'" if figure == "iops" else "set format y '%g'"]
        script += panel(drawn, mine, figure)
    if not drawn:
        return "no picture: none of the cases that it shows was measured"
    try:
        p = subprocess.run(["gnuplot"], input="\n".join([*script, "unset multiplot", ""]), capture_output=True, text=True)
    except OSError:
        return "no picture: gnuplot is not installed"
    return None if p.returncode == 0 else f"no picture: gnuplot: {p.stderr.strip()[:300]}"
