#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peers of `graph-windows`: a count per key and minute over the same file, checked against its answer.

  python3 -m venv VENV && VENV/bin/pip install bytewax        # outside of this repository
  VENV/bin/python benches/graph/peers/windows.py bytewax FILE
  VENV/bin/python benches/graph/peers/windows.py pathway FILE

One worker. CPU seconds are user and system of the whole process, from the start of the engine on; starting Python is not
in them.
"""

import json
import os
import resource
import sys
import time
from datetime import datetime, timedelta, timezone


def add(answer, key, minute, count):
    """One row: see `Answer` in windows.rs."""
    answer["rows"] += 1
    answer["sum"] += count
    mask = (1 << 64) - 1
    answer["checksum"] = (answer["checksum"] + (((key + 1) * minute & mask) * count & mask) % 1_000_000_007) & mask


def with_bytewax(path, answer):
    import bytewax.operators as op
    import bytewax.operators.windowing as windows
    from bytewax.connectors.files import FileSource
    from bytewax.dataflow import Dataflow
    from bytewax.operators.windowing import EventClock, TumblingWindower
    from bytewax.testing import TestingSink, run_main

    flow = Dataflow("windows")
    lines = op.input("lines", flow, FileSource(path))
    events = op.map("decode", lines, json.loads)
    clock = EventClock(
        ts_getter=lambda event: datetime.fromtimestamp(event["timestamp"] / 1_000, timezone.utc),
        wait_for_system_duration=timedelta(seconds=5, milliseconds=1),
    )
    align = datetime(2026, 1, 1, tzinfo=timezone.utc)
    windower = TumblingWindower(length=timedelta(minutes=1), align_to=align)
    counted = windows.count_window("count", events, clock, windower, lambda event: event["user"])
    out = []
    op.output("out", counted.down, TestingSink(out))
    run_main(flow)
    base = int(align.timestamp()) // 60
    for key, (window, count) in out:
        add(answer, int(key[1:]), base + window, count)


def with_pathway(path, answer):
    import pathway as pw

    class Event(pw.Schema):
        timestamp: int
        user: str

    events = pw.io.jsonlines.read(path, schema=Event, mode="static")
    counted = events.select(user=pw.this.user, minute=pw.this.timestamp // 60_000)
    counted = counted.groupby(pw.this.user, pw.this.minute).reduce(
        pw.this.user, pw.this.minute, count=pw.reducers.count()
    )
    rows = {}

    def changed(key, row, time, is_addition):
        place = (int(row["user"][1:]), row["minute"])
        if is_addition:
            rows[place] = row["count"]
        elif rows.get(place) == row["count"]:
            del rows[place]

    pw.io.subscribe(counted, changed)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    for (key, minute), count in rows.items():
        add(answer, key, minute, count)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("bytewax", "pathway"):
        sys.exit(__doc__)
    engine, path = sys.argv[1:]
    answer = {"rows": 0, "sum": 0, "checksum": 0}
    begun, before = time.monotonic(), os.times()
    {"bytewax": with_bytewax, "pathway": with_pathway}[engine](path, answer)
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    right = json.load(open(path + ".answer"))
    events = right["sum"]
    print(json.dumps({
        "bench": "windows", "engine": engine, "events": events, "cpu_s": cpu, "wall_s": time.monotonic() - begun,
        "events_per_cpu_s": events / cpu, "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "answer": answer, "exact": answer == right,
    }))


if __name__ == "__main__":
    main()
