/*
 * hold: many connections that do nothing, or wait.
 *
 *   hold <conninfo> <connections> [<statement>]
 *
 * Opens so many connections, and with a statement starts it on each. Then it says "ready" and reads whatever the server sends
 * (notifications, for one), until its own standard input ends. Then it ends the sessions and says how many notifications came.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static void
die(PGconn *conn)
{
	fprintf(stderr, "hold: %s", conn == NULL ? "out of memory\n" : PQerrorMessage(conn));
	exit(1);
}

static PGresult *
checked(PGconn *conn, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die(conn);
	return res;
}

/* Reads what has come; returns the number of notifications. */
static long
drain(PGconn *conn)
{
	PGnotify   *notify;
	PGresult   *res;
	long		count = 0;

	if (!PQconsumeInput(conn))
		die(conn);
	while ((notify = PQnotifies(conn)) != NULL)
	{
		count++;
		PQfreemem(notify);
	}
	while (!PQisBusy(conn) && (res = PQgetResult(conn)) != NULL)
		PQclear(checked(conn, res));
	return count;
}

/* A session that waits in the server does not see that its client goes. */
static void
end_sessions(const char *conninfo, PGconn **conns, int connections)
{
	PGconn	   *killer = PQconnectdb(conninfo);
	char		sql[100];

	for (int i = 0; i < connections; i++)
	{
		sprintf(sql, "SELECT pg_terminate_backend(%d, 5000)", PQbackendPID(conns[i]));
		PQclear(checked(killer, PQexec(killer, sql)));
	}
	PQfinish(killer);
}

int
main(int argc, char **argv)
{
	int			connections = argc > 2 ? atoi(argv[2]) : 0;
	PGconn	  **conns = calloc(connections + 1, sizeof(PGconn *));
	struct pollfd *polls = calloc(connections + 1, sizeof(struct pollfd));
	long		notifications = 0;

	if (argc != 3 && argc != 4)
		return fprintf(stderr, "usage: hold conninfo connections [statement]\n"), 2;
	if (conns == NULL || polls == NULL)
		die(NULL);
	for (int i = 0; i < connections; i++)
	{
		conns[i] = PQconnectdb(argv[1]);
		if (PQstatus(conns[i]) != CONNECTION_OK || (argc > 3 && !PQsendQuery(conns[i], argv[3])))
			die(conns[i]);
		polls[i].fd = PQsocket(conns[i]);
		polls[i].events = POLLIN;
	}
	polls[connections].fd = 0;
	polls[connections].events = POLLIN;
	puts("ready");
	fflush(stdout);

	while (polls[connections].revents == 0)
	{
		(void) poll(polls, connections + 1, -1);
		for (int i = 0; i < connections; i++)
			if (polls[i].revents != 0)
				notifications += drain(conns[i]);
	}
	end_sessions(argv[1], conns, connections);
	printf("%ld\n", notifications);
	return 0;
}
