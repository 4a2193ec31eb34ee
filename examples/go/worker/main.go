// Takes orders and writes their invoices, until SIGTERM.        go run ./worker
//
// An order is leased to us.  The invoice and the ack are one transaction, so both are there or neither.  If we die, or
// are too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// The lease lasts mq.visibility_timeout, 30 s unless set: mq.receive('orders', 10, '5 minutes') is for slower work.
const receive = "SELECT id, receipt, payload, failures FROM mq.receive('orders', 10, wait => '1 s')"

const leaseLost = "MQ001"

type message struct {
	ID       int64
	Receipt  pgtype.UUID
	Payload  []byte
	Failures int
}

// The work.  Whatever error it returns, nothing of it stays.
func writeInvoice(ctx context.Context, tx pgx.Tx, payload []byte) error {
	var p struct {
		Order int64 `json:"order"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO invoices SELECT id, amount FROM orders WHERE id = $1", p.Order)
	return err
}

func handle(ctx context.Context, db *pgx.Conn, m message) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if err := writeInvoice(ctx, tx, m.Payload); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT mq.ack($1::uuid)", m.Receipt)
		return err
	})
	var pgErr *pgconn.PgError
	switch {
	case err == nil || db.IsClosed():
		return err
	case errors.As(err, &pgErr) && pgErr.Code == leaseLost:
		log.Printf("message %d: lease lost, rolled back", m.ID)
		return nil
	}
	delay := time.Hour
	if m.Failures < 12 {
		delay = time.Second << m.Failures
	}
	log.Printf("message %d: %v; again in %v", m.ID, err, delay)
	// Not strict: should the lease be over by now, then others have the message, and that is that.
	_, err = db.Exec(ctx, "SELECT mq.nack(ARRAY[$1::uuid], $2::interval, strict => false)", m.Receipt, delay)
	return err
}

// One batch.
func work(stopping context.Context, db *pgx.Conn) error {
	ctx := context.Background() // not the one that stops us: what has begun is finished
	rows, _ := db.Query(ctx, receive)
	messages, err := pgx.CollectRows(rows, pgx.RowToStructByPos[message])
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := handle(ctx, db, m); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func main() {
	log.SetFlags(0)
	stopping, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	backoff := 100 * time.Millisecond
	for stopping.Err() == nil {
		// Empty: PGHOST and so on.  Behind a PgBouncer before 1.21 in transaction mode:
		// default_query_exec_mode=cache_describe, for it knows no prepared statements there.
		db, err := pgx.Connect(stopping, os.Getenv("DATABASE_URL"))
		if err == nil {
			for err == nil && stopping.Err() == nil {
				if err = work(stopping, db); err == nil {
					backoff = 100 * time.Millisecond // only now: a pooler lets us connect when the server is away
				}
			}
			db.Close(context.Background())
		}
		switch {
		case err == nil || stopping.Err() != nil:
		case isConnectionError(err):
			log.Printf("no connection: %v; again in %v", err, backoff)
			sleep(stopping, backoff)
			if backoff *= 2; backoff > 30*time.Second {
				backoff = 30 * time.Second
			}
		default:
			log.Fatal(err)
		}
	}
	fmt.Println("stopped")
}

// 08: connection; 57P: the server goes down, comes up, or an administrator ended the session; or no word from a server.
func isConnectionError(err error) bool {
	var pgErr *pgconn.PgError
	return !errors.As(err, &pgErr) || strings.HasPrefix(pgErr.Code, "08") || strings.HasPrefix(pgErr.Code, "57P")
}
