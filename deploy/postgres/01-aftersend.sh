#!/bin/sh
# Runs once, when the Postgres volume is new: our own role and database, apart
# from Temporal's.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -v password="$AFTERSEND_DB_PASSWORD" <<'SQL'
create role aftersend login password :'password';
create database aftersend owner aftersend;
SQL
