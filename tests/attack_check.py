# SPDX-License-Identifier: MIT
"""tests/attack_check.py: what bench/attack.py makes of its rows: DIR BUILD. First of a real run with few attempts, then of a made-up
program's, which loses where the real one never should, and has a run ended. An assertion says what is wrong."""
import json, os, stat, subprocess, sys

DIR, BUILD = sys.argv[1:]
ATTEMPTS = 30
FAKE = """#!/usr/bin/env python3
import json, os, signal, sys, time
if sys.argv[1] == "list":
    print(json.dumps({"strategies": ["copy", "validate"], "attacks": [{"name": "one", "text": "an attack"}]}))
    sys.exit(0)
if sys.argv[1] == os.environ.get("ENDED_IN"):
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
won = int(os.environ["LOST_" + sys.argv[1]])
row = {"strategy": sys.argv[1], "attack": "one", "attempts": 8, "successes": won, "seed": int(sys.argv[4]), "note": "",
       "stopped": {"busy": 8 - won} if won < 8 else {}, "won": {"changed": won} if won else {}}
if won:
    row["damage"] = {"frame": 4, "offset": 0, "before": "c0 c1", "after": "80 80"}
print(json.dumps(row))
"""


def run(build, **env):
    env = {**os.environ, "BUILD": build, "RESULTS": DIR, "QUICK": "", "SEED": "1", "STRATEGIES": "", "ATTACKS": "", **env}
    said = subprocess.run([sys.executable, "bench/attack.py"], env=env, capture_output=True, text=True)
    with open(os.path.join(DIR, "attack.json")) as f:
        return said, json.load(f)


said, got = run(BUILD, ATTEMPTS=str(ATTEMPTS))
assert said.returncode == 0, said.stderr
assert got["kind"] == "attack" and got["commit"] and got["machine"]["cpu"] and len(got["attacks"]) == 11, got.keys()
pairs = {(r["strategy"], r["attack"]) for r in got["rows"]}
assert pairs == {(s, a["name"]) for s in ("copy", "pin", "iommu", "validate") for a in got["attacks"]}, pairs
for r in got["rows"]:
    assert r["attempts"] in (0, ATTEMPTS) and bool(r["note"]) == (r["attempts"] == 0), r
    assert r["successes"] == 0 or r["strategy"] == "validate", r
    assert sum(r["stopped"].values()) + sum(r["won"].values()) == r["attempts"] and sum(r["won"].values()) == r["successes"], r
assert "before" in said.stdout and f"[{len(pairs)}/{len(pairs)}]" in said.stderr, said

os.makedirs(os.path.join(DIR, "bench"))
fake = os.path.join(DIR, "bench", "attack_dma")
with open(fake, "w") as f:
    f.write(FAKE)
os.chmod(fake, stat.S_IRWXU)
for copy, validate, status, sentence in ((0, 3, 0, ""), (1, 3, 1, "copy lost 1 of 8"), (0, 0, 1, "validate was to lose")):
    said, _ = run(DIR, LOST_copy=str(copy), LOST_validate=str(validate))
    assert said.returncode == status and sentence in said.stderr, (copy, validate, said)
said, got = run(DIR, LOST_copy="0", LOST_validate="3", ENDED_IN="validate")
assert said.returncode == 1 and "was ended after 1 rows" in said.stderr and [r["strategy"] for r in got["rows"]] == ["copy"], (said, got)
