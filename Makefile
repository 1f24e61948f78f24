# The front door: every target prepares what it needs. "make" alone lists them.
#   PYTHON   the interpreter to embed and to build with (default: the system's)
#   MODELS   a model repository for "make up" to serve beside the examples
#   ARGS     more arguments for pytest, psql or the benchmark: make test ARGS="-k join"
#   VERSION  which PostgreSQL "make test-asserts" builds: 15, 17 or 18
#   VERSIONS  which PostgreSQLs "make test-matrix" takes: VERSIONS="15 17"
#   PG_CONFIG  another PostgreSQL than the embedded 16, for test, bench, up, ...; they use a copy of it

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
PG_CONFIG =
VERSION ?= 15
ARGS ?=
VERSIONS ?=

# In the environment rather than in a file: the checkout may be read-only to somebody.
DEV = PYTHONDONTWRITEBYTECODE=1 MODEL_FDW_PG_CONFIG="$(PG_CONFIG)" $(PYTHON) -m dev

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo up down psql test test-full test-asserts test-valgrind test-sqlsmith test-matrix test-chroot peers clients \
	lint bench build install uninstall clean

help:
	@awk -F ':.*## ' '/^## / { print (n++ ? "\n" : "") substr($$0, 4) } \
		/^[a-z-]+:.*## / { printf "  make %-13s  %s\n", $$1, $$2 }' Makefile

## To use it

demo: ## from a bare checkout to predictions on screen
	@$(DEV) demo

up: ## start PostgreSQL and Triton and leave them running; addresses in .run/env (MODELS)
	@$(DEV) up

psql: ## open a session on the servers of "make up" (ARGS)
	@$(DEV) psql $(ARGS)

down: ## stop what "make up" started
	@$(DEV) down

install: ## install into a PostgreSQL that is there: PG_CONFIG=... PYTHON=...
	@DESTDIR="$(DESTDIR)" $(DEV) install "$(PG_CONFIG)"

uninstall: ## remove what "make install" has installed: PG_CONFIG=... PYTHON=...
	@$(DEV) uninstall "$(PG_CONFIG)"

clean: ## stop the servers and remove all state
	@$(DEV) clean

## To work on it

test: ## run all tests (ARGS)
	@$(DEV) test $(ARGS)

test-full: ## run all tests, every query shape under every setting (ARGS)
	@$(DEV) test --full $(ARGS)

test-asserts: ## run the tests on a PostgreSQL with asserts, built from source (VERSION, ARGS)
	@$(DEV) test-asserts "$(VERSION)" $(ARGS)

test-valgrind: ## run some of the tests on that PostgreSQL under valgrind (VERSION, ARGS)
	@$(DEV) test-valgrind "$(VERSION)" $(ARGS)

test-sqlsmith: ## run the queries that sqlsmith makes at random, for ten minutes (PG_CONFIG, ARGS)
	@$(DEV) test-sqlsmith $(ARGS)

test-matrix: ## run the SQL and integration tests on each PostgreSQL from 14 to 18 (VERSIONS, ARGS)
	@$(DEV) test-matrix "$(VERSIONS)" $(ARGS)

test-chroot: ## run the image's commands in a plain Debian root: as root, with debootstrap
	@$(DEV) test tests/integration/test_chroot.py --chroot $(ARGS)

peers: ## install MLServer and KServe (1 GB), so that "make test" tests it, too
	@$(DEV) peers

clients: ## install psycopg, pandas, node-pg and dbt (400 MB), and run examples/clients with them and JDBC (ARGS)
	@$(DEV) clients $(ARGS)

lint: ## check style, types and C warnings (ARGS: some of the checks)
	@$(DEV) lint $(ARGS)

bench: ## run the benchmark (ARGS)
	@$(DEV) bench $(ARGS)

build: ## install and build everything, start nothing
	@$(DEV) build
