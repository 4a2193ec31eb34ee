/*
 * Places orders: the row and its message are one transaction.        producer [orders]
 *
 * A pipeline sends all of it before it reads the first answer: the network is waited for once, not once per statement.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <libpq-fe.h>

/* an order and its message in one statement, hence in one transaction even without BEGIN and COMMIT */
static const char *const PLACE_ORDER =
	"WITH o AS (INSERT INTO orders (amount) VALUES ($1) RETURNING id) "
	"SELECT mq.send('orders', jsonb_build_object('order', id)) FROM o";

static void
die(PGconn *db)
{
	fprintf(stderr, "%s", PQerrorMessage(db));
	exit(1);
}

static void
send_query(PGconn *db, const char *query, int nparams, const char *const *params)
{
	if (!PQsendQueryParams(db, query, nparams, NULL, params, NULL, NULL, 0))
		die(db);
}

/* BEGIN ... COMMIT as well, because there may be more to do for an order than one statement */
static void
send_order(PGconn *db, int amount, bool changes_his_mind)
{
	char		text[16];
	const char *params[] = {text};

	snprintf(text, sizeof(text), "%d", amount);
	send_query(db, "BEGIN", 0, NULL);
	send_query(db, PLACE_ORDER, 1, params);
	/* after a rollback neither the order nor the message was ever there */
	send_query(db, changes_his_mind ? "ROLLBACK" : "COMMIT", 0, NULL);
	if (!PQpipelineSync(db))
		die(db);
}

/* the answers to one send_order: three results, each followed by a null, and the mark of the sync */
static void
read_answers(PGconn *db)
{
	for (;;)
	{
		PGresult   *res = PQgetResult(db);
		ExecStatusType status = PQresultStatus(res);

		if (res != NULL && status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_PIPELINE_SYNC)
			die(db);
		PQclear(res);
		if (res != NULL && status == PGRES_PIPELINE_SYNC)
			return;
	}
}

int
main(int argc, char **argv)
{
	int			orders = argc > 1 ? atoi(argv[1]) : 10;
	int			at_once = 50;	/* not without bound: what nobody reads yet has to be buffered somewhere */
	PGconn	   *db = PQconnectdb("");	/* PGHOST and so on */

	if (PQstatus(db) != CONNECTION_OK || !PQenterPipelineMode(db))
		die(db);
	for (int sent = 0, answered = 0; answered < orders; answered++)
	{
		for (; sent < orders && sent < answered + at_once; sent++)
			send_order(db, 100 * (sent + 1), (sent + 1) % 5 == 0);
		read_answers(db);
	}
	PQfinish(db);
	return 0;
}
