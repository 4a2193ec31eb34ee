# shellcheck shell=bash
# What the runner scripts share: a private copy of the tree, a build and an install that touch nothing outside it,
# and throw-away servers.
#
# A runner starts with
#     . "$(dirname "$0")/lib.sh"; in_private_copy "$@"
# and from there on runs in $work/src, as an ordinary user, with everything it makes below $work:
#     src/ the tree   build-*/ builds   stage-*/ installs   s/ the server's socket   data, log   tmp/ other temporary files
# $work goes, and every server in it stops, when the runner ends, however it ends (MQ_KEEP=1 keeps the files).
# The copy is there because PGXS cannot build below a directory with a space in its name, a server refuses to run as
# root, and two runs must not meet.

set -euo pipefail
work=''

say()  { printf '%s\n' "$*"; }
die()  { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- PostgreSQL ------------------------------------------------------------------------------------------------------

# The pg_config to build with: $PG_CONFIG, else the newest of 15 to 18 that has a server and server headers.
find_pg_config() {
	local v c
	if [ -n "${PG_CONFIG:-}" ]; then say "$PG_CONFIG"; return; fi
	for v in 18 17 16 15; do
		c=/usr/lib/postgresql/$v/bin/pg_config
		if [ -x "$c" ] && [ -x "${c%/*}/postgres" ] && [ -e "$("$c" --includedir-server)/postgres.h" ]; then
			say "$c"; return
		fi
	done
	return 1
}

pg_major() { "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }

use_postgres() {
	PG_CONFIG=$(find_pg_config) || die 'no PostgreSQL 15 to 18 with server headers: run tools/setup'
	bindir=$("$PG_CONFIG" --bindir)
	PATH=$bindir:$PATH
	pgxs_dir=$("$PG_CONFIG" --pgxs); pgxs_dir=${pgxs_dir%/makefiles/pgxs.mk}   # pg_regress, isolationtester, PostgreSQL::Test
	export PG_CONFIG PATH bindir pgxs_dir
}

# ---- machines that hunt faults ---------------------------------------------------------------------------------------

# version_of <machine>: as it is here
version_of() {
	case $1 in
	gcc)        gcc -dumpfullversion ;;
	postgres)   pg_major ;;
	shellcheck) shellcheck --version | sed -n 's/^version: //p' ;;
	*)          "$1" --version | sed -n 's/.*[^0-9.]\([0-9][0-9.]*\).*/\1/p' | head -1 ;;
	esac
}

# they_are <machine> ...: with their versions
they_are() { local m; for m in "$@"; do printf '%s%s %s' "${sep:-}" "$m" "$(version_of "$m")"; local sep=', '; done; }

# held_to <machine> ...: whether all have the version in test/lint/versions; else what they find is shown and fails nothing
held_to() {
	local m
	for m in "$@"; do [[ $(version_of "$m"). == "$(sed -n "s/^$m //p" test/lint/versions)".* ]] || return 1; done
}

# ---- the private copy ------------------------------------------------------------------------------------------------

# Runs the calling script again, from a private copy of the tree and not as root.  Returns only there.
in_private_copy() {
	local name=${0##*/} top
	if [ -n "${MQ_INSIDE:-}" ]; then enter_work; return; fi
	top=$(cd "$(dirname "$0")/.." && pwd -P)
	# /var/tmp, because /tmp may be memory, where fsync costs nothing; short, because socket paths are
	work=$(mktemp -d "${MQ_WORK:-/var/tmp}/mq.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/src"
	tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.so' -cf - . | tar -C "$work/src" -xf -
	cd "$work"
	trap - EXIT
	if [ "$(id -u)" = 0 ]; then
		local user=postgres
		id -u postgres >/dev/null 2>&1 || user=nobody
		chown -R "$user" "$work"
		exec setpriv --reuid="$user" --regid="$(id -gn "$user")" --init-groups \
			env MQ_INSIDE="$work" HOME="$work" bash "$work/src/tools/$name" "$@"
	fi
	exec env MQ_INSIDE="$work" bash "$work/src/tools/$name" "$@"
}

enter_work() {
	local var
	work=$MQ_INSIDE
	unset MQ_INSIDE MAKEFLAGS MAKELEVEL MFLAGS CDPATH
	for var in $(compgen -e | grep '^PG' | grep -vx PG_CONFIG || true); do unset "$var"; done   # no way to another server
	trap leave_work EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	umask 077
	export work LC_ALL=C.UTF-8 TMPDIR=$work/tmp PGHOST=$work/s PGUSER=postgres PGDATABASE=postgres
	mkdir -p "$work/s" "$work/tmp"
	cd "$work/src"
	use_postgres
}

# kill -9 and not an orderly stop: nothing in there is needed any more, and leaving must not be able to hang
leave_work() {
	local status=$? pidfile pid
	trap '' INT TERM HUP
	for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done   # bash's own: a bare Debian has no other
	while read -r pidfile; do
		kill_server "${pidfile%/*}"
	done < <(find "$work" -name postmaster.pid 2>/dev/null)
	cd /
	if [ -n "${MQ_KEEP:-}" ]; then say "kept: $work" >&2; else rm -rf "$work"; fi
	exit "$status"
}

# ---- build -----------------------------------------------------------------------------------------------------------

# build <name> [make variables]: builds in build-<name>, installs into stage-<name>
build() {
	local name=$1 log=$work/build-$1.log; shift
	mkdir -p "$work/build-$name"
	cp -r "$work/src/." "$work/build-$name"
	if ! make -C "$work/build-$name" -s -j"$(nproc)" PG_CONFIG="$PG_CONFIG" "$@" >"$log" 2>&1 ||
	   ! make -C "$work/build-$name" -s install DESTDIR="$work/stage-$name" PG_CONFIG="$PG_CONFIG" "$@" >>"$log" 2>&1; then
		tail -40 "$log"
		return 1
	fi
}

library() { say "$work/stage-$1$("$PG_CONFIG" --pkglibdir)/mq.so"; }

# The settings with which a server finds what build installed.  extension_destdir is Debian's, and only sees
# $libdir/...; shared_preload_libraries = 'mq' goes by dynamic_library_path.  18 has a setting of its own.
stage_conf() {
	local stage=$work/stage-$1 share
	share=$("$PG_CONFIG" --sharedir)
	say "dynamic_library_path = '$stage$("$PG_CONFIG" --pkglibdir):\$libdir'"
	if [ "$(pg_major)" -ge 18 ]; then
		say "extension_control_path = '$stage$share:\$system'"
	elif grep -q extension_destdir "$share/postgresql.conf.sample"; then
		say "extension_destdir = '$stage'"
	else
		die "this PostgreSQL $(pg_major) has no extension_destdir: Debian's packages do"
	fi
}

# ---- a throw-away server ---------------------------------------------------------------------------------------------

# servers_run <shell words>: from now on pg_ctl starts servers by these words, with the server's own command behind them
servers_run() {
	mkdir -p "$work/bin"
	printf '#!/bin/sh\nexec %s "%s/postgres" "$@"\n' "$*" "$bindir" >"$work/bin/postgres"
	printf '#!/bin/sh\nexec "%s/pg_ctl" -p "%s/bin/postgres" "$@"\n' "$bindir" "$work" >"$work/bin/pg_ctl"
	chmod +x "$work/bin/postgres" "$work/bin/pg_ctl"
	PATH=$work/bin:$PATH
}

# make_server <build> [more configuration lines]: initdb into $work/data.  Unix socket only: no port to collide on.
make_server() {
	local stage=$1; shift
	initdb -D "$work/data" -U postgres -A trust -E UTF8 --locale=C >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log"; return 1; }
	{
		say "listen_addresses = ''"
		say "unix_socket_directories = '$work/s'"
		say "shared_preload_libraries = 'mq'"
		stage_conf "$stage"
		printf '%s\n' "$@"
	} >>"$work/data/postgresql.conf"
}

start_server() {
	pg_ctl -D "$work/data" -l "$work/log" -w -t 120 start >/dev/null 2>&1 ||
		{ say 'the server did not start; the end of its log:'; tail -20 "$work/log"; return 1; }
}

stop_server() { pg_ctl -D "$work/data" -w -t 120 -m "${1:-fast}" stop >/dev/null; }

# kill_server [data directory]: kill -9 of the postmaster and everything it started, as a power cut would.
# Returns when they are gone.  Does nothing when the pid in the file is no longer that server's.
kill_server() {
	local data=${1:-$work/data} postmaster pids pid
	postmaster=$(head -1 "$data/postmaster.pid")
	[ "/proc/$postmaster/cwd" -ef "$data" ] || return 0
	kill -STOP "$postmaster"                                  # stopped, it starts no more processes
	mapfile -t pids < <(children_of "$postmaster")
	kill -9 "${pids[@]}" "$postmaster" 2>/dev/null || true    # it last: its death would tell the others
	for pid in "$postmaster" "${pids[@]}"; do
		while running "$pid"; do sleep 0.02; done
	done
	await_reaping "$postmaster" || rm -f "$data/postmaster.pid"
}

# A dead postmaster that nobody has reaped yet still counts as a running server for the next one.  In a container
# without an init it stays like that for ever: then the file that names it has to go.
await_reaping() {
	local tries=0
	while [ -e "/proc/$1" ]; do
		[ $((tries += 1)) -le 100 ] || return 1
		sleep 0.02
	done
}

children_of() { grep -lsx "PPid:[[:space:]]*$1" /proc/[0-9]*/status | cut -d/ -f3 || true; }

# a process that is dead and only waits to be reaped does not run
running() { [ -e "/proc/$1" ] && ! grep -qs '^State:[[:space:]]*[ZX]' "/proc/$1/status"; }

q() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
