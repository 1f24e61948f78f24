#!/bin/sh
# Become a PostgreSQL server; make its cluster first, where there is none.
#
#   POSTGRES_PASSWORD       of the superuser; the first start needs it, or
#   POSTGRES_PASSWORD_FILE  a file with it
#   POSTGRES_USER           the superuser (default: postgres)
#   POSTGRES_DB             a database to make (default: the superuser's name)
#   POSTGRES_INITDB_ARGS    more arguments of initdb
#
# The first start runs the files *.sh, *.sql and *.sql.gz of /docker-entrypoint-initdb.d in the order of their names;
# psql finds the server, the superuser and the database by its environment there. The cluster grows beside its place,
# and is moved there when all has worked: a start that failed, or was killed, is begun anew by the next one.
set -eu

fail() {
    printf 'entrypoint: %s\n' "$1" >&2
    exit 1
}

# Run SQL from a file in the new database; the first error ends it.
run_sql() {
    psql --no-psqlrc --set=ON_ERROR_STOP=1 --file="$1"
}

read_password() {
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        cat "$POSTGRES_PASSWORD_FILE"
    else
        printf '%s\n' "${POSTGRES_PASSWORD:-}"
    fi
}

# Refuse what the cluster could not be moved to at the end.
check_place() {
    if mountpoint -q "$PGDATA"; then
        fail "a volume is mounted at $PGDATA itself; mount it above: at /var/lib/pgsql"
    fi
    if [ -n "$(ls -A "$PGDATA" 2>/dev/null)" ]; then
        fail "$PGDATA is neither empty nor a cluster of PostgreSQL"
    fi
    mkdir -p "${PGDATA%/*}" || fail "user $(id -u) cannot write to the volume; make it the owner"
}

# Start a server for the init scripts, on a socket that nobody else knows.
start_privately() {
    export PGDATA="$draft" PGHOST="$work" PGUSER="$POSTGRES_USER" PGDATABASE="$POSTGRES_DB"
    pg_ctl --wait --options="-c listen_addresses='' -c unix_socket_directories='$work'" start
    if [ "$POSTGRES_DB" != postgres ]; then
        printf 'CREATE DATABASE :"name";\n' > "$work/database.sql"
        PGDATABASE=postgres psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=name="$POSTGRES_DB" --file="$work/database.sql"
    fi
}

run_scripts() {
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh | *.sql | *.sql.gz) [ -e "$file" ] || continue ;;
            *) continue ;;
        esac
        printf 'entrypoint: running %s\n' "$file"
        case $file in
            *.sh) if [ -x "$file" ]; then "$file"; else sh "$file"; fi ;;
            *.sql) run_sql "$file" ;;
            *.sql.gz)
                gzip -dc "$file" > "$work/script.sql"
                run_sql "$work/script.sql"
                ;;
        esac
    done
}

# Make the cluster; runs in a process of its own, so that its variables and its trap end with it.
initialise() {
    check_place
    target=$PGDATA draft=$PGDATA.new
    rm -rf "$draft"
    work=$(mktemp -d)
    trap 'pg_ctl --silent --mode=immediate stop >/dev/null 2>&1 || true; rm -rf "$work" "$draft"' EXIT
    read_password > "$work/password"
    [ -n "$(cat "$work/password")" ] || fail 'the superuser needs a password: set POSTGRES_PASSWORD'

    # shellcheck disable=SC2086 # several arguments
    initdb --pgdata="$draft" --username="$POSTGRES_USER" --pwfile="$work/password" \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    rm "$work/password"
    printf '%s\n' "listen_addresses = '*'" "shared_preload_libraries = 'model_fdw'" >> "$draft/postgresql.conf"
    printf 'host all all all scram-sha-256\n' >> "$draft/pg_hba.conf"

    start_privately
    run_scripts
    pg_ctl --wait --mode=fast stop
    mv -T "$draft" "$target"
}

case ${1:-} in
    '' | -*) set -- postgres "$@" ;;
esac
[ "$1" = postgres ] || exec "$@"
[ "$(id -u)" -ne 0 ] || fail 'PostgreSQL does not run as root; run the container as its own user'

export POSTGRES_USER="${POSTGRES_USER:-postgres}"
export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    (initialise)
fi
# Not for the server's environment, where a superuser of the database could read it.
unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
exec "$@"
