// lib/pq and pgx against the Postgres wire: host and port as arguments. Says nothing when all is well.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"
)

func must(err error, what string) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func want(ok bool, what string, found any) {
	if !ok {
		fmt.Fprintln(os.Stderr, what+":", found)
		os.Exit(1)
	}
}

func main() {
	where := fmt.Sprintf("postgres://tester@%s:%s/counterflow?sslmode=disable", os.Args[1], os.Args[2])
	since := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

	db, err := sql.Open("postgres", where)
	must(err, "lib/pq")
	var count int64
	must(db.QueryRow("SELECT count(*) FROM events").Scan(&count), "lib/pq count")
	want(count == 100, "lib/pq count", count)
	must(db.QueryRow("SELECT count(*) FROM events WHERE source = $1 AND time > $2", "http", since).Scan(&count), "lib/pq parameters")
	want(count == 100, "lib/pq parameters", count)
	var at time.Time
	var user string
	must(db.QueryRow("SELECT time, user FROM events ORDER BY time LIMIT 1").Scan(&at, &user), "lib/pq types")
	want(at.Year() == 2026, "lib/pq time", at)
	tx, err := db.Begin()
	must(err, "lib/pq begin")
	_, err = tx.Exec("DECLARE parts CURSOR FOR SELECT value FROM generate_series(1, 5000)")
	must(err, "lib/pq declare")
	fetched := 0
	for {
		part, err := tx.Query("FETCH 300 FROM parts")
		must(err, "lib/pq fetch")
		before := fetched
		for part.Next() {
			fetched++
		}
		must(part.Err(), "lib/pq fetch")
		if fetched == before {
			break
		}
	}
	want(fetched == 5000, "lib/pq cursor", fetched)
	must(tx.Commit(), "lib/pq commit")
	_, err = db.Exec("DELETE FROM events")
	want(err != nil, "lib/pq wrote", err)
	must(db.Close(), "lib/pq close")

	ctx := context.Background()
	connection, err := pgx.Connect(ctx, where)
	must(err, "pgx")
	must(connection.QueryRow(ctx, "SELECT count(*) FROM events WHERE source = $1 AND time > $2 AND line >= $3", "http", since, 0).Scan(&count), "pgx parameters")
	want(count == 100, "pgx parameters", count)
	var entities []string
	must(connection.QueryRow(ctx, "SELECT time, user, entities FROM events ORDER BY time LIMIT 1").Scan(&at, &user, &entities), "pgx types")
	want(at.Year() == 2026 && len(entities) > 0, "pgx types", entities)
	rows, err := connection.Query(ctx, "SELECT value FROM generate_series(1, 50000)")
	must(err, "pgx rows")
	read := 0
	for rows.Next() {
		read++
	}
	must(rows.Err(), "pgx rows")
	want(read == 50000, "pgx rows", read)
	_, err = connection.Exec(ctx, "DROP TABLE events")
	want(err != nil, "pgx wrote", err)
	must(connection.Close(ctx), "pgx close")
}
