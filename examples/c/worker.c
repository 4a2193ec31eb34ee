/*
 * Takes orders and writes their invoices, until SIGTERM.        worker
 *
 * An order is leased to us.  The invoice and the ack are one transaction, so both are there or neither.  If we die, or are
 * too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.
 *
 * A whole batch goes to the server as one pipeline: one round trip, and yet one transaction per order, because what lies
 * between two syncs of a pipeline is one transaction.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define MAX_BACKOFF_MS	30000
#define LEASE_LOST		"MQ001"

/* the lease lasts mq.visibility_timeout, 30 s unless set: mq.receive('orders', 10, '5 minutes') is for slower work */
static const char *const RECEIVE =
	"SELECT id, receipt, payload->>'order', failures FROM mq.receive('orders', 10, wait => '1 s')";
static const char *const WRITE_INVOICE = "INSERT INTO invoices SELECT id, amount FROM orders WHERE id = $1";
static const char *const ACK = "SELECT mq.ack($1::uuid)";

/* not strict: should the lease be over by now, then others have the message, and that is that */
static const char *const NACK = "SELECT mq.nack(ARRAY[$1::uuid], make_interval(secs => $2), strict => false)";

static volatile sig_atomic_t stopping = false;

static void
stop(int signo)
{
	(void) signo;
	stopping = true;
}

/* ends early at a signal */
static void
pause_ms(int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&ts, NULL);
}

/* is it our query or data that is wrong, so that another attempt could change nothing? */
static bool
is_server_error(const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	/* without SQLSTATE: libpq's own; 08: connection; 57P: the server goes down, comes up, or ended the session */
	return sqlstate != NULL && strncmp(sqlstate, "08", 2) != 0 && strncmp(sqlstate, "57P", 3) != 0;
}

/* false: the connection is lost */
static bool
nack(PGconn *db, const char *id, const char *receipt, int failures, const char *reason)
{
	char		delay[16];
	const char *params[] = {receipt, delay};
	PGresult   *res;
	bool		ok;

	snprintf(delay, sizeof(delay), "%d", failures < 12 ? 1 << failures : 3600);
	fprintf(stderr, "message %s: %s; again in %s s\n", id, reason, delay);
	res = PQexecParams(db, NACK, 2, NULL, params, NULL, NULL, 0);
	ok = PQresultStatus(res) == PGRES_TUPLES_OK;
	PQclear(res);
	return ok;
}

/*
 * Reads all results of a transaction, up to the mark of the sync.  *error is the first that is one, else null.
 * False: the connection is lost, and no mark comes.
 */
static bool
read_transaction(PGconn *db, PGresult **error)
{
	int			nulls = 0;		/* one is between two statements, more is the end */

	while (nulls < 2)
	{
		PGresult   *res = PQgetResult(db);
		ExecStatusType status = PQresultStatus(res);

		nulls = res == NULL ? nulls + 1 : 0;
		if (res != NULL && status == PGRES_FATAL_ERROR && *error == NULL)
			*error = res;
		else
			PQclear(res);
		if (res != NULL && status == PGRES_PIPELINE_SYNC)
			return true;
	}
	return false;
}

/* false: the connection is lost */
static bool
handle(PGconn *db, PGresult *messages)
{
	int			n = PQntuples(messages);
	PGresult  **errors = calloc(n, sizeof(PGresult *));
	bool		ok = PQenterPipelineMode(db);

	for (int i = 0; i < n && ok; i++)
	{
		const char *order[] = {PQgetvalue(messages, i, 2)};
		const char *receipt[] = {PQgetvalue(messages, i, 1)};

		ok = PQsendQueryParams(db, WRITE_INVOICE, 1, NULL, order, NULL, NULL, 0) &&
			PQsendQueryParams(db, ACK, 1, NULL, receipt, NULL, NULL, 0) &&
			PQpipelineSync(db);
	}
	for (int i = 0; i < n && ok; i++)
		ok = read_transaction(db, &errors[i]);
	ok = ok && PQexitPipelineMode(db);

	for (int i = 0; i < n; i++)
	{
		const char *id = PQgetvalue(messages, i, 0);

		if (ok && errors[i] != NULL)
		{
			const char *sqlstate = PQresultErrorField(errors[i], PG_DIAG_SQLSTATE);

			if (sqlstate != NULL && strcmp(sqlstate, LEASE_LOST) == 0)
				fprintf(stderr, "message %s: lease lost, rolled back\n", id);
			else
				ok = nack(db, id, PQgetvalue(messages, i, 1), atoi(PQgetvalue(messages, i, 3)),
						  PQresultErrorField(errors[i], PG_DIAG_MESSAGE_PRIMARY));
		}
		PQclear(errors[i]);
	}
	free(errors);
	return ok;
}

/* One batch.  False: the connection is lost. */
static bool
work(PGconn *db)
{
	PGresult   *messages = PQexec(db, RECEIVE);
	bool		ok = PQresultStatus(messages) == PGRES_TUPLES_OK;

	if (!ok && is_server_error(messages))
	{
		fprintf(stderr, "%s", PQerrorMessage(db));
		exit(1);
	}
	if (ok && PQntuples(messages) > 0)
		ok = handle(db, messages);
	PQclear(messages);
	return ok;
}

int
main(void)
{
	struct sigaction action = {.sa_handler = stop};
	int			backoff = 100;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	while (!stopping)
	{
		PGconn	   *db = PQconnectdb("");	/* PGHOST and so on */

		bool		ok = PQstatus(db) == CONNECTION_OK;

		while (ok && !stopping)
		{
			ok = work(db);
			if (ok)
				backoff = 100;	/* only now: a pooler lets us connect when the server is away */
		}
		if (!ok)
		{
			fprintf(stderr, "no connection: %.*s; again in %d ms\n",
					(int) strcspn(PQerrorMessage(db), "\n"), PQerrorMessage(db), backoff);
			pause_ms(backoff);
			backoff = 2 * backoff < MAX_BACKOFF_MS ? 2 * backoff : MAX_BACKOFF_MS;
		}
		PQfinish(db);
	}
	puts("stopped");
	return 0;
}
