#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check.py [--rules-only | --show] CASE ALERTS: compares alerts (JSON lines of `counterflow replay` or `counterflow
alerts`) with CASE/expected.json. Exit 1 and what differs if they do not agree.

--rules-only: only that every expected rule has an alert. --show: prints the alerts as a table, compares nothing.
"""

import json
import sys
from pathlib import Path


def differences(expected, alerts, rules_only):
    """Yields what is wrong, as text."""
    for want in expected["alerts"]:
        of_rule = [alert for alert in alerts if alert["rule_id"] == want["rule_id"]]
        if not of_rule:
            yield f'{want["rule"]}: no alert'
            continue
        if rules_only:
            continue
        fitting = [alert for alert in of_rule if want["group"].items() <= alert["group"].items()]
        if len(fitting) != 1:
            yield f'{want["rule"]}: {len(fitting)} alerts of the group {want["group"]}, of {[a["group"] for a in of_rule]}'
        elif len(of_rule) != 1:
            yield f'{want["rule"]}: {len(of_rule)} alerts instead of one'
        elif want.get("count", fitting[0]["count"]) != fitting[0]["count"]:
            yield f'{want["rule"]}: count {fitting[0]["count"]} instead of {want["count"]}'
    if rules_only:
        return
    known = {want["rule_id"] for want in expected["alerts"]}
    at_risk = expected.get("at_risk", [])  # whose risk may be told: it depends on the hour's border whether it is
    for alert in alerts:
        of_risk = alert["rule_id"] == "risk" and alert["group"] in at_risk
        if alert["rule_id"] not in known and not of_risk:
            yield f'an alert of {alert["rule_id"]} that nobody expects: {alert["group"]}'
        for name in set(alert["group"].values()) & set(expected["no_alert_names"]):
            yield f'an alert of {alert["rule_id"]} names {name}, who did nothing wrong'


def show(expected, alerts):
    names = {want["rule_id"]: want["rule"] for want in expected["alerts"]}
    for alert in sorted(alerts, key=lambda alert: (alert["first"], alert["rule_id"])):
        group = " ".join(f"{field}={value}" for field, value in alert["group"].items())
        print(f'  {alert["first"]}  {names.get(alert["rule_id"], alert["rule_id"]):32} {alert["count"]:>4}  {group}')


def main():
    flags = {argument for argument in sys.argv[1:] if argument.startswith("--")}
    case, file = (Path(argument) for argument in sys.argv[1:] if not argument.startswith("--"))
    expected = json.loads((case / "expected.json").read_text())
    alerts = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    alerts = [alert for alert in alerts if alert["state"] in ("open", "sealed")]
    for alert in alerts:
        alert["group"] = dict(alert["group"])  # an object, or a list of pairs
    if "--show" in flags:
        show(expected, alerts)
        return
    wrong = list(differences(expected, alerts, "--rules-only" in flags))
    print("\n".join(wrong) or "as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
