/*
 * Takes orders and writes their invoices, until SIGTERM.        worker
 *
 * Orders are leased to us, some at a time.  For each: first the ack, then the work, then the commit of both.  If the lease
 * is over, because others took too long, the ack fails and the work is not begun: another worker has the order.  If we die,
 * the invoice and the ack were never there, and when the lease ends another worker gets the order.
 *
 * A whole batch goes to the server as one pipeline: one round trip, and yet one transaction per order, because what lies
 * between two syncs of a pipeline is one transaction.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>

#include <libpq-fe.h>

#define MAX_BACKOFF_MS	5000
#define LEASE_LOST		"MQ001"

/* the lease lasts mq.visibility_timeout, 30 s unless set; visibility_timeout => '5 minutes' is for slower work */
static const char *const RECEIVE =
	"SELECT id, receipt, payload->>'order', failures FROM mq.receive('orders', max_messages => 10)";

/* this takes nothing, so nothing is lost when it is broken off */
static const char *const WAIT = "CALL mq.wait('orders', timeout => '20 s')";
static const char *const WRITE_INVOICE = "INSERT INTO invoices SELECT id, amount FROM orders WHERE id = $1";
static const char *const ACK = "SELECT mq.ack($1)";

/* not strict: should the lease be over by now, then others have the message, and that is that */
static const char *const NACK = "SELECT mq.nack_batch(ARRAY[$1::uuid], delay => make_interval(secs => $2), strict => false)";
static const char *const RELEASE = "SELECT mq.release_batch(ARRAY[$1::uuid], strict => false)";

static volatile sig_atomic_t stopping = false;

static void
stop(int signo)
{
	(void) signo;
	stopping = true;
}

/*
 * Waits until there is something to be read on the socket (-1: none), ms are over (0: without end), or we are to stop.  The
 * signals are blocked until pselect() waits, so that none comes unseen between the look and the wait.
 */
static void
idle(int sock, int ms)
{
	sigset_t	signals,
				old;
	fd_set		sockets;
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	FD_ZERO(&sockets);
	if (sock >= 0)
		FD_SET(sock, &sockets);
	sigprocmask(SIG_BLOCK, &signals, &old);
	if (!stopping)
		pselect(sock + 1, &sockets, NULL, NULL, ms > 0 ? &ts : NULL, &old);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* false: it has failed, and PQerrorMessage says why */
static bool
succeeded(PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	PQclear(res);
	return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

/* false: it has failed */
static bool
nack(PGconn *db, const char *id, const char *receipt, int failures, const char *reason)
{
	char		delay[16];
	const char *params[] = {receipt, delay};

	snprintf(delay, sizeof(delay), "%d", failures < 12 ? 1 << failures : 3600);
	fprintf(stderr, "message %s: %s; again in %s s\n", id, reason, delay);
	return succeeded(PQexecParams(db, NACK, 2, NULL, params, NULL, NULL, 0));
}

/* gives them to the others now, and not when the lease ends; false: it has failed */
static bool
release(PGconn *db, PGresult *messages)
{
	bool		ok = true;

	for (int i = 0; i < PQntuples(messages) && ok; i++)
	{
		const char *receipt[] = {PQgetvalue(messages, i, 1)};

		ok = succeeded(PQexecParams(db, RELEASE, 1, NULL, receipt, NULL, NULL, 0));
	}
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

/* false: the connection is lost, or a nack has failed */
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

		ok = PQsendQueryParams(db, ACK, 1, NULL, receipt, NULL, NULL, 0) &&
			PQsendQueryParams(db, WRITE_INVOICE, 1, NULL, order, NULL, NULL, 0) &&
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
				fprintf(stderr, "message %s: lease lost, not begun\n", id);
			else
				ok = nack(db, id, PQgetvalue(messages, i, 1), atoi(PQgetvalue(messages, i, 3)),
						  PQresultErrorField(errors[i], PG_DIAG_MESSAGE_PRIMARY));
		}
		PQclear(errors[i]);
	}
	free(errors);
	return ok;
}

/* false: it has failed */
static bool
wait_for_messages(PGconn *db)
{
	if (!PQsendQuery(db, WAIT))
		return false;
	idle(PQsocket(db), 0);
	if (stopping)
		return true;			/* and the connection is closed */
	return succeeded(PQgetResult(db)) && PQgetResult(db) == NULL;
}

/* One batch, or a wait for one.  False: it has failed. */
static bool
work(PGconn *db)
{
	PGresult   *messages = PQexec(db, RECEIVE);
	bool		ok = PQresultStatus(messages) == PGRES_TUPLES_OK;

	if (ok && PQntuples(messages) == 0)
		ok = wait_for_messages(db);
	else if (ok)
		ok = stopping ? release(db, messages) : handle(db, messages);
	PQclear(messages);
	return ok;
}

int
main(void)
{
	struct sigaction action = {.sa_handler = stop};
	int			backoff = 250;

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
				backoff = 250;	/* only now: a pooler lets us connect when the server is away */
		}
		if (!ok)				/* no connection, no right, no queue, a standby: it may be well later */
		{
			fprintf(stderr, "%.*s; once more in %d ms\n",
					(int) strcspn(PQerrorMessage(db), "\n"), PQerrorMessage(db), backoff);
			idle(-1, backoff);
			backoff = 2 * backoff < MAX_BACKOFF_MS ? 2 * backoff : MAX_BACKOFF_MS;
		}
		PQfinish(db);
	}
	puts("stopped");
	return 0;
}
