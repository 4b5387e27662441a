# SPDX-License-Identifier: MIT
"""bench/report_diagram.py: what each strategy does, drawn: above the way of the data from the guest's page to the disk, below
what is held while the request lives, from get to put. Plain SVG made here."""
import html

from report_chart import colour

W, H = 440, 262
INK, SOFT, LOSS = "#1a1a1a", "#5a5a5a", "#B00020"
GET, DONE, LEFT, RIGHT = 136, 372, 96, 434  # of the time line


def text(x, y, said, size=13, anchor="start", fill=INK, weight="normal"):
    return (f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" '
            f'font-family="sans-serif">{html.escape(said)}</text>')


def box(x, y, w, h, lines, stroke=INK, fill="#fff"):
    first = y + h / 2 + 4.5 - 8 * (len(lines) - 1)
    words = "".join(text(x + w / 2, first + 16 * i, t, 13, "middle") for i, t in enumerate(lines))
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>{words}'


def arrow(x0, x1, y, said="", stroke=INK, wide=2.4):
    """Both ways: a read goes back where a write went."""
    tips = f"M{x0 + 8},{y - 5}L{x0},{y}L{x0 + 8},{y + 5}M{x1 - 8},{y - 5}L{x1},{y}L{x1 - 8},{y + 5}"
    return (f'<path d="M{x0},{y}L{x1},{y}{tips}" fill="none" stroke="{stroke}" stroke-width="{wide}"/>'
            + text((x0 + x1) / 2, y - 9, said, 13, "middle", stroke, "bold"))


def bar(row, x0, x1, tint, said="", dashed=False):
    y = 160 + 26 * row
    fill = f'fill="none" stroke="{tint}" stroke-width="1.6" stroke-dasharray="5 4"' if dashed else f'fill="{tint}"'
    ink = tint if dashed else "#fff"
    return f'<rect x="{x0}" y="{y}" width="{x1 - x0}" height="17" rx="3" {fill}/>' + text((x0 + x1) / 2, y + 13, said, 12.5, "middle", ink, "bold")


def label(row, said):
    return text(LEFT - 8, 173 + 26 * row, said, 13, "end", SOFT)


def time_line():
    marks = "".join(f'<path d="M{x},140V244" stroke="#999" stroke-dasharray="2 3"/>' + text(x, 134, t, 13, "middle", SOFT) for x, t in ((GET, "get"), (DONE, "put")))
    middle = (GET + DONE) / 2
    return (marks + f'<path d="M{LEFT},250H{RIGHT}M{RIGHT - 7},246L{RIGHT},250L{RIGHT - 7},254" fill="none" stroke="{SOFT}"/>'
            + text(middle, 134, "the disk reads or writes", 13, "middle", SOFT) + text(LEFT - 8, 254, "time", 13, "end", SOFT))


def ends(left, right=("disk",), stroke=INK, fill="#fff"):
    return box(4, 30, 96, 56, left, stroke, fill) + box(366, 30, 70, 56, right)


def guest_may(said, fill=SOFT):
    return label(2, "guest may") + text(GET + 8, 226, said, 13, "start", fill)


def copy(c):
    return (ends(["guest's page"]) + arrow(102, 170, 58, "copy", c) + box(172, 30, 112, 56, ["bounce buffer", "of dom0"], c, "#eef5fa") + arrow(286, 364, 58, "I/O")
            + label(0, "grant held") + bar(0, GET - 24, GET + 24, c, "write") + bar(0, DONE - 24, DONE + 24, c, "read")
            + label(1, "buffer") + bar(1, GET - 24, DONE + 24, c, "registered with io_uring") + guest_may("do as it likes: nobody looks"))


def validate(c):
    return (ends(["guest's page"]) + arrow(102, 364, 58, "I/O, on the page itself") + text(232, 82, "checked once, then trusted", 13, "middle", c)
            + label(0, "checked") + bar(0, GET - 18, GET + 18, c, "now") + label(1, "held") + bar(1, GET + 20, DONE, LOSS, "nothing: the hole", True)
            + guest_may("give the page to another", LOSS))


def pin(c):
    return (ends(["guest's page", "pinned"], stroke=c, fill="#e9f6f1") + arrow(102, 364, 58, "I/O, on the page itself")
            + text(232, 82, "checked, and kept from going", 13, "middle", c) + label(0, "entry, frame") + bar(0, GET, DONE, c, "pinned: its end is busy")
            + label(1, "extent") + bar(1, LEFT, RIGHT, c, "registered with io_uring once, for all requests") + guest_may("scribble over its own data"))


def iommu(c):
    return (ends(["bus address", "in the request"]) + arrow(102, 164, 58, "", c) + box(166, 30, 108, 56, ["IOTLB, tree", "→ frame"], c, "#f8eef6") + arrow(276, 364, 58, "I/O")
            + text(220, 106, "checked at each use: present, permitted, this domain’s", 13, "middle", c)
            + label(0, "mapping") + bar(0, LEFT, RIGHT, c, "made once from a checked grant, used often")
            + label(1, "translation") + bar(1, GET, DONE, c, "in use: an unmap waits") + guest_may("use what is mapped, or fault"))


DRAWN = {"copy": copy, "validate": validate, "pin": pin, "iommu": iommu}


def draw(name):
    c = colour(name)
    title = f"Strategy {name}: the way of the data, and what is held from get to put"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" width="{W}" height="{H}" viewBox="0 0 {W} {H}">'
            f'<rect width="{W}" height="{H}" fill="#fff"/>' + text(6, 18, name, 16, "start", c, "bold") + DRAWN[name](c) + time_line() + "</svg>\n")
