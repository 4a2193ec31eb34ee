// Places orders: the row and its message are one transaction.        go run ./producer [orders]
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

var errChangedMind = errors.New("the customer changed his mind")

type payload struct {
	Order int64 `json:"order"`
}

func placeOrder(ctx context.Context, db *pgx.Conn, amount int, changesHisMind bool) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var order int64
		if err := tx.QueryRow(ctx, "INSERT INTO orders (amount) VALUES ($1) RETURNING id", amount).Scan(&order); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT mq.send('orders', $1)", payload{order}); err != nil {
			return err
		}
		if changesHisMind {
			return errChangedMind // rolls back: neither the order nor the message was ever there
		}
		return nil
	})
}

func main() {
	log.SetFlags(0)
	orders := 10
	if len(os.Args) > 1 {
		orders, _ = strconv.Atoi(os.Args[1])
	}
	ctx := context.Background()
	// Empty: PGHOST and so on.  Behind a PgBouncer before 1.21 in transaction mode: default_query_exec_mode=cache_describe,
	// for it knows no prepared statements there.
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close(ctx)
	for n := 1; n <= orders; n++ {
		if err := placeOrder(ctx, db, 100*n, n%5 == 0); err != nil && !errors.Is(err, errChangedMind) {
			log.Fatal(err)
		}
	}
}
