# SPDX-License-Identifier: MIT
"""bench/report_attack.py: what each strategy stops, from attack.json: attempts, successes, and by what the others ended.

A success is anything but the attacker's own data read, changed or stopped. A strategy "stops all" only where every attack
that the run knows was tried on it.
"""
from report_chart import colour
from report_data import NOT_MEASURED, OFFERED, STRATEGIES, listed, number, strategies_of
from report_page import Cell

BYTES_A_LINE = 16
SHOWN_MOST = 3


def attacks(attack):
    """[(name, text)]: those that the file names, and those that only rows have."""
    named = {str(a["name"]): str(a.get("text") or "") for a in attack.objects("attacks") if a.get("name")}
    for r in attack.rows:
        if r.get("attack") is not None:
            named.setdefault(str(r["attack"]), "")
    return list(named.items())


def score(attack, strategy, name):
    """(attempts, successes, {how it was stopped: count}, {what was won: count}) over the rows of a pair; None where it was not tried."""
    attempts = successes = 0
    stopped, won = {}, {}
    for r in attack.pick(strategy=strategy, attack=name):
        tries, got = number(r.get("attempts")), number(r.get("successes"))
        if not tries or got is None:
            continue
        attempts, successes = attempts + int(tries), successes + int(got)
        for ways, key in ((stopped, "stopped"), (won, "won")):
            for how, n in (r.get(key) if isinstance(r.get(key), dict) else {}).items():
                ways[str(how)] = ways.get(str(how), 0) + int(number(n) or 0)
    return (attempts, successes, stopped, won) if attempts else None


def losses(attack, strategy):
    """Names of the attacks that succeeded at least once."""
    return [n for n, _ in attacks(attack) if (score(attack, strategy, n) or (0, 0))[1]]


def untried(attack, strategy):
    return [n for n, _ in attacks(attack) if not score(attack, strategy, n) and not does_not_apply(attack, strategy, n)]


def does_not_apply(attack, strategy, name):
    """The row says that the attack has no handle on this strategy: tried 0 times, with a note."""
    rows = attack.pick(strategy=strategy, attack=name)
    return bool(rows) and all(not number(r.get("attempts")) and r.get("note") for r in rows)


def stops_all(attack, strategy):
    """True, False, or None: not all was tried, so that nothing can be said."""
    if not attacks(attack) or losses(attack, strategy):
        return False if attacks(attack) else None
    return None if untried(attack, strategy) else True


def ways_text(stopped):
    there = sorted(((n, how) for how, n in stopped.items() if n), reverse=True)
    return ", ".join(f"{how} {n:,}" for n, how in there)


def matrix_cell(attack, strategy, name):
    got = score(attack, strategy, name)
    if got is None:
        if does_not_apply(attack, strategy, name):
            return Cell("–", "none", str(attack.pick(strategy=strategy, attack=name)[0]["note"]))
        return Cell(NOT_MEASURED, "none")
    attempts, successes, stopped, won = got
    if successes:
        return Cell(f"✗ {successes:,} of {attempts:,}", "bad", "; else ".join(t for t in (f"won: {ways_text(won)}" if ways_text(won) else "", ways_text(stopped)) if t))
    return Cell(f"✓ 0 of {attempts:,}", "good", ways_text(stopped))


def verdict_text(attack):
    """A sentence on the strategies that a disk can have, and one on validate."""
    out = []
    them = [s for s in strategies_of(attack) if s in OFFERED and s != "validate"]
    clean = [s for s in them if stops_all(attack, s)]
    if clean:
        tries = sum((score(attack, s, n) or (0,))[0] for s in clean for n, _ in attacks(attack))
        out.append(f"{listed(f'`{s}`' for s in clean)} stopped every attempt of every attack: 0 successes in {tries:,}.")
    for s in them:
        lost = losses(attack, s)
        if lost:
            out.append(f"**`{s}` lost to {listed(lost)}**: it does not protect as it should, and that is a defect to be reported.")
        elif untried(attack, s):
            out.append(f"`{s}` lost to nothing, but was not tried against {listed(untried(attack, s))}.")
    lost = losses(attack, "validate")
    if lost:
        scores = [score(attack, "validate", n) for n in lost]
        ways = {}
        for way, n in (w for s in scores for w in s[3].items()):
            ways[way] = ways.get(way, 0) + n
        said = f" ({ways_text(ways)})" if ways else ""
        out.append(f"`validate` lost {sum(s[1] for s in scores):,} times{said}, to {listed(lost)}: what was checked was no longer true when the I/O used it.")
    elif attack.pick(strategy="validate"):
        out.append("`validate` lost to nothing in this run, though its hole is real: too few attempts met the moment between check and use. Run it longer.")
    return out


def damage_text(damage):
    """The victim's canary before and after, and which bytes of it are no longer its own."""
    before, after = (str(damage.get(k, "")).split() for k in ("before", "after"))
    lines = [f"frame {damage.get('frame', '?')} of the victim, from byte {damage.get('offset', '?')}"]
    for at in range(0, max(len(before), len(after)), BYTES_A_LINE):
        old, new = before[at:at + BYTES_A_LINE], after[at:at + BYTES_A_LINE]
        marks = ["^^" if a != b else "  " for a, b in zip(old, new)]
        lines += [f"  its canary   {' '.join(old)}", f"  found there  {' '.join(new)}"]
        lines += [f"               {' '.join(marks)}".rstrip()] if any(m.strip() for m in marks) else []
    return "\n".join(lines)


def notes(attack):
    """What rows with successes have to show, the victim's canary above all: [(strategy, attack, text)]."""
    rows = [r for r in attack.rows if number(r.get("successes"))]
    said = [(r, damage_text(r["damage"]) if isinstance(r.get("damage"), dict) else str(r.get("note") or "")) for r in rows]
    rank = lambda p: (p[0].get("strategy") != "validate", not isinstance(p[0].get("damage"), dict))
    return [(str(r.get("strategy")), str(r.get("attack")), text) for r, text in sorted(said, key=rank) if text]


def section(attack, page):
    page.section("attacks", "What each stops")
    if not attack.rows:
        return page.note(f"Not measured in this run: {attack.why or 'attack.json has no rows'}. `make attack-dma` measures it.")
    page.text("A hostile frontend shares memory with dom0 and breaks every rule while its I/O is in flight; frames that it gives back go to a second domain, the "
              "victim, whose frames hold canaries. A **success** is anything but the attacker's own data read, changed or stopped. Small print: how the others ended.")
    page.points(verdict_text(attack))
    them = [s for s in strategies_of(attack) if s in OFFERED] + [s for s in strategies_of(attack) if s not in OFFERED and s in STRATEGIES]
    them += [s for s in strategies_of(attack) if s not in them]
    rows = [[Cell(n, "", t), *(matrix_cell(attack, s, n) for s in them)] for n, t in attacks(attack)]
    page.table(["attack", *(Cell(f"`{s}`", "", "", colour(s)) for s in them)], rows, "Successes of attempts", kind="wide")
    shown = notes(attack)
    if shown:
        page.heading("What the victim found")
        for strategy, name, text in shown[:SHOWN_MOST]:
            page.text(f"`{strategy}` under “{name}”, the last success of this run:")
            page.listing(text)
