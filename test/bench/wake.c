/*
 * wake: how long after a statement is sent has a blocked receiver the message?
 *
 *   wake <conninfo> <seconds> <per second> <statement>                                   the statement alone
 *   wake <conninfo> <seconds> <per second> <statement> <waiters> <receive> [<ack>]       with receivers
 *
 * Statement: one that sends, in autocommit; $1 is the payload, a JSON object whose "n" is the message's number. It runs so
 * many times a second, never twice at once. With receivers: that many connections run the receive statement, which blocks in
 * the server, over and over; with <ack> also that, with the column "receipt" as $1, after each message.
 *
 * A time begins before the statement is given to libpq. It ends when this program has the statement's result (without
 * receivers), or the receiver's result with the message (with receivers). One process with one thread does it all, so all is
 * read from one clock, and both kinds of time have the same costs of a client.
 *
 * Prints, each with p50, p99, the largest (microseconds) and how many there are:
 *   issued    from the statement given to libpq; this is what the benchmark is about
 *   answered  with receivers: from the statement's result. Below zero where the receiver is faster than the sender's client
 *   send      with receivers: the statement alone, as without receivers
 * and with receivers
 *   busy      messages sent while no receiver's client was waiting
 *   late      messages that took more than 0.5 s
 * A message that has not come after 5 s, or has come twice, is an error. Messages that warm the sessions up are not counted.
 */
#include <errno.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#define LATE 0.5
#define LOST 5.0

typedef struct Session
{
	PGconn	   *conn;
	int			acking;
} Session;

/* Message n, in seconds; 0: not yet. */
typedef struct Message
{
	double		sent;
	double		returned;
	double		received;
} Message;

static const char *conninfo;
static Session *sessions;		/* 0 sends, the others receive */
static int	waiters;
static int	waiting;			/* receivers whose clients wait for a message */
static int	acking;				/* receivers that have one and acknowledge it */
static int	has_ack;
static Message *messages;
static int	sent;
static int	received;
static int	returned;
static int	busy;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A receiver whose client has gone ends by itself, but perhaps not before the next run begins: then it would take a message. */
static void
end_receivers(void)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	char		sql[100];

	for (int i = 1; i <= waiters; i++)
	{
		sprintf(sql, "SELECT pg_terminate_backend(%d, 5000)", sessions[i].conn == NULL ? 0 : PQbackendPID(sessions[i].conn));
		PQclear(PQexec(conn, sql));
	}
	PQfinish(conn);
}

static void
die(const char *what)
{
	fprintf(stderr, "wake: %s", what);
	if (sessions != NULL)
		end_receivers();
	exit(1);
}

static void
check(Session *s, int ok)
{
	if (!ok)
		die(PQerrorMessage(s->conn));
}

static PGresult *
checked(Session *s, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	check(s, status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK);
	return res;
}

static void
prepare(Session *s, const char *name, const char *statement)
{
	PQclear(checked(s, PQprepare(s->conn, name, statement, 0, NULL)));
}

static void
start(Session *s, const char *statement, int params, const char *const *values)
{
	check(s, PQsendQueryPrepared(s->conn, statement, params, values, NULL, NULL, 0));
	/* a statement this short goes out at once */
	check(s, PQflush(s->conn) == 0);
}

static void
send_next(void)
{
	char		payload[128];
	const char *value = payload;

	sprintf(payload, "{\"order\": 4711, \"customer\": \"c-0815\", \"total\": 129.90, \"n\": %d}", sent);
	busy += waiters > 0 && waiting == 0;
	messages[sent++].sent = now();
	start(&sessions[0], "send", 1, &value);
}

static void
receive_next(Session *s)
{
	waiting++;
	start(s, "receive", 0, NULL);
}

static void
got_message(const char *payload)
{
	const char *at = strstr(payload, "\"n\": ");
	int			n = at == NULL ? -1 : atoi(at + 5);

	if (n < 0 || n >= sent || messages[n].received != 0)
		die("a message that was not sent, or came before\n");
	messages[n].received = now();
	received++;
}

static void
got_result(Session *s, PGresult *res)
{
	if (s == &sessions[0])
	{
		messages[sent - 1].returned = now();
		returned++;
		return;
	}
	if (s->acking)
	{
		s->acking = 0;
		acking--;
		receive_next(s);
		return;
	}
	waiting--;
	if (PQntuples(res) > 0)
		got_message(PQgetvalue(res, 0, PQfnumber(res, "payload")));
	if (PQntuples(res) > 0 && has_ack)
	{
		const char *receipt = PQgetvalue(res, 0, PQfnumber(res, "receipt"));

		s->acking = 1;
		acking++;
		start(s, "ack", 1, &receipt);
	}
	else
		receive_next(s);
}

/* The session's socket is readable: a whole result, or nothing yet. */
static void
readable(Session *s)
{
	PGresult   *res;
	PGresult   *end;

	check(s, PQconsumeInput(s->conn));
	if (PQisBusy(s->conn) || (res = PQgetResult(s->conn)) == NULL)
		return;
	checked(s, res);
	/* what ends the statement has come in the same packet */
	end = PQgetResult(s->conn);
	if (end != NULL)
		die("more than one result\n");
	got_result(s, res);
	PQclear(res);
}

static int	poller;
static int	alarm_clock;

static void
watch(int fd, Session *s)
{
	struct epoll_event event = {.events = EPOLLIN,.data.ptr = s};

	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
		die("epoll_ctl failed\n");
}

/* epoll_wait's own time limit is in milliseconds */
static void
set_alarm(double at)
{
	struct itimerspec when = {.it_value.tv_sec = (time_t) at,.it_value.tv_nsec = (long) ((at - (double) (time_t) at) * 1e9)};

	if (timerfd_settime(alarm_clock, TFD_TIMER_ABSTIME, &when, NULL) != 0)
		die("timerfd_settime failed\n");
}

/* Handles what comes, until then at the latest; returns after anything has come. */
static void
handle(double until)
{
	struct epoll_event events[64];
	int			count;

	set_alarm(until);
	count = epoll_wait(poller, events, 64, -1);
	if (count < 0 && errno != EINTR)
		die("epoll_wait failed\n");
	for (int i = 0; i < count; i++)
		if (events[i].data.ptr != NULL)
			readable(events[i].data.ptr);
}

static int
all_done(void)
{
	return returned == sent && (waiters == 0 || (received == sent && acking == 0));
}

static void
finish(void)
{
	double		end = now() + LOST;

	while (!all_done() && now() < end)
		handle(end);
	for (int n = 0; n < sent && waiters > 0 && !all_done(); n++)
		if (messages[n].received == 0)
			fprintf(stderr, "wake: message %d of %d has not come\n", n, sent);
	if (!all_done())
		die("that is too long\n");
}

/* One after the other: it takes each session some statements until it is quick. */
static void
warm_up(void)
{
	for (int i = 0; i < 20 + 4 * waiters; i++)
	{
		send_next();
		finish();
	}
	busy = 0;
}

static int
ascending(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
report(const char *what, double *times, int count)
{
	if (count == 0)
		die("nothing was sent\n");
	qsort(times, count, sizeof(double), ascending);
	printf("%s %.1f %.1f %.1f %d\n", what, 1e6 * times[count / 2], 1e6 * times[(int) (count * 0.99)], 1e6 * times[count - 1], count);
}

static void
report_all(int first)
{
	double	   *times = malloc((sent - first + 1) * sizeof(double));
	int			late = 0;

	if (times == NULL)
		die("out of memory\n");
	for (int n = first; n < sent; n++)
		times[n - first] = (waiters > 0 ? messages[n].received : messages[n].returned) - messages[n].sent;
	report("issued", times, sent - first);
	if (waiters == 0)
		return;
	for (int n = first; n < sent; n++)
	{
		times[n - first] = messages[n].received - messages[n].returned;
		late += messages[n].received - messages[n].sent > LATE;
		if (messages[n].received - messages[n].sent > LATE)
			fprintf(stderr, "wake: message %d took %.0f ms\n", n, 1e3 * (messages[n].received - messages[n].sent));
	}
	report("answered", times, sent - first);
	for (int n = first; n < sent; n++)
		times[n - first] = messages[n].returned - messages[n].sent;
	report("send", times, sent - first);
	printf("busy %d\nlate %d\n", busy, late);
	free(times);
}

int
main(int argc, char **argv)
{
	double		seconds,
				per_second,
				begin;
	int			first;

	if (argc != 5 && argc != 7 && argc != 8)
		die("usage: wake conninfo seconds per_second statement [waiters receive [ack]]\n");
	conninfo = argv[1];
	seconds = atof(argv[2]);
	per_second = atof(argv[3]);
	waiters = argc > 5 ? atoi(argv[5]) : 0;
	has_ack = argc > 7;
	sessions = calloc(waiters + 1, sizeof(Session));
	messages = calloc(20 + 4 * waiters + (size_t) (seconds * per_second) + 2, sizeof(Message));
	if (sessions == NULL || messages == NULL)
		die("out of memory\n");
	poller = epoll_create1(0);
	alarm_clock = timerfd_create(CLOCK_MONOTONIC, 0);
	if (poller < 0 || alarm_clock < 0)
		die("no epoll or timerfd here\n");
	watch(alarm_clock, NULL);
	for (int i = 0; i <= waiters; i++)
	{
		Session    *s = &sessions[i];

		s->conn = PQconnectdb(conninfo);
		check(s, PQstatus(s->conn) == CONNECTION_OK && PQsetnonblocking(s->conn, 1) == 0);
		watch(PQsocket(s->conn), s);
		if (i == 0)
			prepare(s, "send", argv[4]);
		else
		{
			prepare(s, "receive", argv[6]);
			if (has_ack)
				prepare(s, "ack", argv[7]);
			receive_next(s);
		}
	}

	warm_up();
	first = sent;
	begin = now();
	for (;;)
	{
		double		due = begin + (sent - first) / per_second;

		if (due >= begin + seconds)
			break;
		if (returned == sent && now() >= due)
			send_next();
		else
			handle(returned == sent ? due : begin + seconds + LOST);
		if (now() > begin + seconds + LOST)
			break;
	}
	finish();
	end_receivers();
	report_all(first);
	return 0;
}
