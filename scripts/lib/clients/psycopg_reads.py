"""psycopg against the Postgres wire: host and port as arguments. Says nothing when all is well."""

import datetime
import sys

import psycopg

host, port = sys.argv[1], sys.argv[2]
where = f"host={host} port={port} user=tester dbname=counterflow connect_timeout=20"

with psycopg.connect(where, autocommit=True) as connection:
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert count == 100, count
    # Parameters, by text and binary, of several types.
    row = connection.execute("SELECT count(*) FROM events WHERE source = %s AND line >= %s", ("http", 0)).fetchone()
    assert row[0] == 100, row
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT time, user, entities, epoch FROM events ORDER BY time LIMIT 1")
            time, user, entities, epoch = cursor.fetchone()
            assert isinstance(time, datetime.datetime) and time.tzinfo is not None, time
            assert isinstance(user, str) and isinstance(entities, list) and isinstance(epoch, int)
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    (later,) = connection.execute("SELECT count(*) FROM events WHERE time > %s", (since,)).fetchone()
    assert later == 100, later
    # The same statement often: prepared by the driver.
    for _ in range(10):
        connection.execute("SELECT count(*) FROM events WHERE user = %s", ("u0",)).fetchone()
    try:
        connection.execute("DELETE FROM events")
    except psycopg.errors.ReadOnlySqlTransaction:
        pass
    else:
        raise AssertionError("a write was taken")
    connection.execute("SET as_of = 0")
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert count == 0, count

with psycopg.connect(where) as connection:
    # In a transaction, as drivers do by default.
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.rollback()
    # Cursors on the server: by their name, in parts, with parameters, as text and binary.
    for binary in (False, True):
        with connection.cursor(name="Parts", binary=binary) as cursor:
            cursor.itersize = 300
            cursor.execute("SELECT value FROM generate_series(1, 5000) WHERE value > %s ORDER BY value", (10,))
            assert cursor.fetchone() == (11,)
            assert [value for (value,) in cursor] == list(range(12, 5001))
    with connection.cursor(name="kinds") as cursor:
        cursor.execute("SELECT time, user, entities, epoch FROM events ORDER BY time")
        rows = cursor.fetchmany(30) + cursor.fetchall()
        assert len(rows) == 100 and isinstance(rows[0][0], datetime.datetime) and isinstance(rows[0][2], list)
    connection.commit()
