#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test.py [COUNTERFLOW]: runs the cases beside the rules (NAME.test.jsonl) through the real program.

Exit 1 if a rule fires where it must not, does not where it must, or has no cases.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else str(ROOT.parent / "target/debug/counterflow")
# A correlation that never alerts itself has no cases of its own.
FEEDS_ONLY = {"ssh_password_guessing_one_account"}


def run(command, *arguments):
    done = subprocess.run([PROGRAM, command, "--rules", str(ROOT), "--year", "2026", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def cases():
    """Yields (rule name, rule id, whether it keeps state, case)."""
    for rule in sorted(ROOT.glob("*/*.yml")):
        text = rule.read_text()
        rule_id = re.search(r"^ *id: (\S+)", text, re.M).group(1)
        keeps_state = re.search(r"^correlation:|timewindow:", text, re.M) is not None
        file = rule.with_suffix(".test.jsonl")
        found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if rule.stem not in FEEDS_ONLY and {case["fires"] for case in found} != {True, False}:
            sys.exit(f"{file}: wants a case that fires and one that does not")
        yield from ((rule.stem, rule_id, keeps_state, case) for case in found)


def main():
    failed, total = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        plain = {}
        for number, (name, rule_id, keeps_state, case) in enumerate(cases()):
            file = os.path.join(folder, f"{number}.log")
            Path(file).write_text("".join(line + "\n" for line in case["lines"]))
            if keeps_state:
                fired = any(alert["rule_id"] == rule_id for alert in run("replay", file))
                failed += report(name, case, fired)
                total += 1
            else:
                plain[file] = (name, rule_id, case)
        # Rules without state need only one run for all of them.
        hits = {(hit["file"], hit["rule_id"]) for hit in run("detect", *plain)}
        for file, (name, rule_id, case) in plain.items():
            failed += report(name, case, (file, rule_id) in hits)
            total += 1
    print(f"{total - failed} of {total} cases hold")
    sys.exit(1 if failed else 0)


def report(name, case, fired):
    if fired == case["fires"]:
        return 0
    print(f"FAILED  {name}: {'fires' if fired else 'does not fire'}: {case['why']}")
    return 1


if __name__ == "__main__":
    main()
