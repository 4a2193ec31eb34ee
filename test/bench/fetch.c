/*
 * fetch: a client that reads whole batches, and acknowledges them.
 *
 *   fetch <conninfo> <seconds> <read statement> [<column> <ack statement>]
 *
 * Runs the read statement over and over.  With an ack statement it also collects the named column of each batch into
 * an array and runs the ack statement with the array as $1.  Stops after so many seconds, or when a read returns
 * nothing.  Prints rows per second.
 */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define UUIDOID 2950

static PGconn *conn;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static PGresult *
checked(PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "fetch: %s", PQerrorMessage(conn));
		exit(1);
	}
	return res;
}

static char *array;
static int	array_length;

static void
reserve(size_t size)
{
	static size_t reserved;

	if (size > reserved && (array = realloc(array, reserved = size)) == NULL)
		abort();
}

static void
put_int(int value)
{
	unsigned	n = htonl(value);

	memcpy(array + array_length, &n, 4);
	array_length += 4;
}

static int
digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* receipts: a uuid[] in binary, as drivers that know the type send it */
static void
collect_uuids(PGresult *res, int column)
{
	reserve(20 + 20 * PQntuples(res));
	array_length = 0;
	put_int(1);					/* dimensions */
	put_int(0);					/* no nulls */
	put_int(UUIDOID);
	put_int(PQntuples(res));
	put_int(1);					/* lower bound */
	for (int row = 0; row < PQntuples(res); row++)
	{
		put_int(16);
		for (const char *c = PQgetvalue(res, row, column); *c; c += *c == '-')
		{
			array[array_length++] = digit(c[0]) << 4 | digit(c[1]);
			c += 2;
		}
	}
}

/* numbers: an array literal, equal neighbours once */
static void
collect_numbers(PGresult *res, int column)
{
	const char *before = "";

	reserve(3 + 21 * PQntuples(res));
	array_length = sprintf(array, "{");
	for (int row = 0; row < PQntuples(res); row++)
	{
		const char *value = PQgetvalue(res, row, column);

		if (strcmp(value, before) != 0)
			array_length += sprintf(array + array_length, "%s%s", array_length > 1 ? "," : "", value);
		before = value;
	}
	strcpy(array + array_length, "}");
}

static void
acknowledge(PGresult *res, int column)
{
	int			binary = PQftype(res, column) == UUIDOID;

	if (binary)
		collect_uuids(res, column);
	else
		collect_numbers(res, column);
	PQclear(checked(PQexecPrepared(conn, "ack", 1, (const char *const *) &array, &array_length, &binary, 0)));
}

int
main(int argc, char **argv)
{
	double		start,
				end;
	long		rows = 0;

	if (argc != 4 && argc != 6)
		return fprintf(stderr, "usage: fetch conninfo seconds read [column ack]\n"), 2;
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
		return fprintf(stderr, "fetch: %s", PQerrorMessage(conn)), 1;
	PQclear(checked(PQprepare(conn, "read", argv[3], 0, NULL)));
	if (argc == 6)
		PQclear(checked(PQprepare(conn, "ack", argv[5], 1, NULL)));

	start = now();
	end = start + atof(argv[2]);
	while (now() < end)
	{
		PGresult   *res = checked(PQexecPrepared(conn, "read", 0, NULL, NULL, NULL, 0));
		int			got = PQntuples(res);

		if (got > 0 && argc == 6)
			acknowledge(res, PQfnumber(res, argv[4]));
		PQclear(res);
		rows += got;
		if (got == 0)
			break;
	}
	printf("%.1f\n", rows / (now() - start));
	PQfinish(conn);
	return 0;
}
