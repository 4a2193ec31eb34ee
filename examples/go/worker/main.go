// Takes orders and writes their invoices, until SIGTERM.        go run ./worker
//
// Orders are leased to us, some at a time.  For each: first the ack, then the work, then the commit of both.  If the
// lease is over, because others took too long, the ack fails and the work is not begun: another worker has the order.  If
// we die, the invoice and the ack were never there, and when the lease ends another worker gets the order.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// The lease lasts mq.visibility_timeout, 30 s unless set; visibility_timeout => '5 minutes' is for slower work.
const receive = "SELECT id, receipt, payload, failures FROM mq.receive('orders', max_messages => 10)"

// This takes nothing, so nothing is lost when it is broken off.
const wait = "CALL mq.wait('orders', timeout => '20 s')"

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
		if _, err := tx.Exec(ctx, "SELECT mq.ack($1)", m.Receipt); err != nil {
			return err
		}
		return writeInvoice(ctx, tx, m.Payload)
	})
	var pgErr *pgconn.PgError
	switch {
	case err == nil || db.IsClosed():
		return err
	case errors.As(err, &pgErr) && pgErr.Code == leaseLost:
		log.Printf("message %d: lease lost, not begun", m.ID)
		return nil
	}
	delay := time.Hour
	if m.Failures < 12 {
		delay = time.Second << m.Failures
	}
	log.Printf("message %d: %v; again in %v", m.ID, err, delay)
	// Not strict: should the lease be over by now, then others have the message, and that is that.
	_, err = db.Exec(ctx, "SELECT mq.nack_batch($1, delay => $2, strict => false)", []pgtype.UUID{m.Receipt}, delay)
	return err
}

// One batch, or a wait for one.
func work(stopping context.Context, db *pgx.Conn) error {
	ctx := context.Background() // not the one that stops us: what we are given, we have to know of
	rows, _ := db.Query(ctx, receive)
	messages, err := pgx.CollectRows(rows, pgx.RowToStructByPos[message])
	if err == nil && len(messages) == 0 {
		_, err = db.Exec(stopping, wait)
	}
	for len(messages) > 0 && err == nil && stopping.Err() == nil {
		err = handle(ctx, db, messages[0])
		messages = messages[1:]
	}
	if len(messages) > 0 && err == nil { // for the others, now and not when the lease ends
		var receipts []pgtype.UUID
		for _, m := range messages {
			receipts = append(receipts, m.Receipt)
		}
		_, err = db.Exec(ctx, "SELECT mq.release_batch($1, strict => false)", receipts)
	}
	return err
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
	backoff := 250 * time.Millisecond
	for stopping.Err() == nil {
		// Empty: PGHOST and so on.  Behind a PgBouncer before 1.21 in transaction mode:
		// default_query_exec_mode=cache_describe, for it knows no prepared statements there.
		db, err := pgx.Connect(stopping, os.Getenv("DATABASE_URL"))
		if err == nil {
			for err == nil && stopping.Err() == nil {
				if err = work(stopping, db); err == nil {
					backoff = 250 * time.Millisecond // only now: a pooler lets us connect when the server is away
				}
			}
			db.Close(context.Background())
			<-db.PgConn().CleanupDone() // pgx may be telling the server to cancel the wait
		}
		if err != nil && stopping.Err() == nil { // no connection, no right, no queue, a standby: it may be well later
			log.Printf("%v; once more in %v", err, backoff)
			sleep(stopping, backoff)
			if backoff *= 2; backoff > 5*time.Second {
				backoff = 5 * time.Second
			}
		}
	}
	fmt.Println("stopped")
}
