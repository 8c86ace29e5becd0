#!/bin/sh
# Creates or upgrades Temporal's two databases. Safe to run at every start:
# only a database without a schema is set up, an existing one is upgraded.
set -eu

: "${POSTGRES_SEEDS:?host of the Postgres server}"
: "${POSTGRES_USER:?role that may create databases}"
: "${SQL_PASSWORD:?password of that role}"

sql() {
    temporal-sql-tool --plugin postgres12_pgx --ep "$POSTGRES_SEEDS" -u "$POSTGRES_USER" -p "${DB_PORT:-5432}" "$@"
}

prepare() { # database, schema directory
    versions="/etc/temporal/schema/postgresql/v12/$2/versioned"
    sql --db "$1" create
    if ! sql --db "$1" update-schema -d "$versions"; then
        sql --db "$1" setup-schema -v 0.0
        sql --db "$1" update-schema -d "$versions"
    fi
}

prepare temporal temporal
prepare temporal_visibility visibility
