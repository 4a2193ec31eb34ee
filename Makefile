# mq: message queues inside PostgreSQL
#
#   make demo     see it work: installs what is missing, throw-away server, about a minute
#   make test     every ring of tests on throw-away servers       RINGS="regress isolation tap ..." to pick
#   make bench    rates beside plain INSERT, COPY, SELECT         make mutants    does the suite catch planted faults?
#   make torture  ledgers against a nemesis                       MINUTES=10 SEED=1
#   make instructions  machine instructions per verb, under callgrind, beside what they were
#   make test-long  the seeded tests with SEEDS="1 2 3", torture for MINUTES=10 with each
#   make coverage  which lines of src/ the rings do not run (part of make test)
#   make lint     gcc -fanalyzer, cppcheck, clang-tidy         make sanitize, make valgrind  the rings on such servers
#
#   make          builds mq.so against the newest PostgreSQL of 15 to 18 here (PG_CONFIG=... for another)
#   make install  puts it into that PostgreSQL
#     WERROR=1    warnings are errors (CI)
#     MQ_COVERAGE=1, MQ_SANITIZE=1  built for gcov, or with ASAN and UBSAN (the server then needs libasan preloaded)
#     MQ_TEST=1   stop points compiled in (test builds only)
#     MQ_ASSERT=1 Assert() in our code checks, on a stock server too
#
# PGXS cannot build in a directory with a space in its name; the runners in tools/ can be called from one, because
# they build in a private copy of the tree.

EXTENSION  = mq
MODULE_big = mq
DATA       = sql/mq--0.1.0.sql
OBJS       = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

.DEFAULT_GOAL = all

# the runners need neither PGXS nor a compiler to be there yet: tools/setup installs them
RUNNERS = demo test bench mutants torture lint instructions coverage sanitize valgrind
.PHONY: $(RUNNERS) test-long

# (make hands variables from its command line, like MINUTES, on to them by itself)
$(filter-out test coverage sanitize valgrind,$(RUNNERS)):
	@tools/$@
test:
	@tools/test $(RINGS)

# the seeded ones with other seeds, and for longer; hours
SEEDS = 1 2 3
test-long:
	@for seed in $(SEEDS); do MQ_SEED=$$seed tools/test tap fuzz && MINUTES=$(or $(MINUTES),10) SEED=$$seed tools/torture || exit; done
coverage:
	@tools/test $(or $(RINGS),regress isolation tap pgtap) coverage
sanitize:
	@MQ_UNDER=sanitizers tools/test $(or $(RINGS),regress isolation tap)
valgrind:
	@MQ_UNDER=valgrind tools/test $(or $(RINGS),regress isolation)

ifneq ($(filter-out $(RUNNERS),$(or $(MAKECMDGOALS),all)),)

PG_CONFIG := $(or $(PG_CONFIG),$(lastword $(sort $(wildcard /usr/lib/postgresql/1[5678]/bin/pg_config))),pg_config)
PG_MAJOR  := $(firstword $(subst ., ,$(lastword $(filter 1%,$(shell $(PG_CONFIG) --version)))))
PGXS      := $(shell $(PG_CONFIG) --pgxs)

ifeq ($(wildcard $(shell $(PG_CONFIG) --includedir-server)/postgres.h),)
$(error no PostgreSQL server headers for $(PG_CONFIG): run tools/setup, or set PG_CONFIG)
endif

# no bitcode: it would need clang, and gains nothing here (Makefile.global says yes, hence override)
override with_llvm = no
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS   = -fvisibility=hidden
EXTRA_CLEAN = $(wildcard src/*.gcda src/*.gcno src/*/*.gcda src/*/*.gcno)

# 15 leaves PGDLLEXPORT empty on ELF; with hidden symbols it has to say something
ifeq ($(PG_MAJOR),15)
PG_CPPFLAGS += -DPGDLLEXPORT='__attribute__((visibility("default")))'
endif

ifdef MQ_TEST
PG_CPPFLAGS += -DMQ_STOP_POINTS
endif

# Safe on a server built without asserts: ExceptionalCondition() is in every server, and up to 17 no header we use
# changes a struct or calls a function that only assert builds have. 18 does (verify_compact_attribute).
ifdef MQ_ASSERT
ifneq ($(PG_MAJOR),18)
PG_CPPFLAGS += -DUSE_ASSERT_CHECKING
endif
endif

ifdef MQ_COVERAGE
PG_CFLAGS  += --coverage
SHLIB_LINK += --coverage
endif

ifdef MQ_SANITIZE
PG_CFLAGS  += -fsanitize=address,undefined
SHLIB_LINK += -fsanitize=address,undefined
endif

# what -Wextra says about PostgreSQL's own headers and calling conventions is not ours to mend
ifdef WERROR
PG_CFLAGS += -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
endif

include $(PGXS)

$(OBJS): $(wildcard src/*/*.h) Makefile

endif
