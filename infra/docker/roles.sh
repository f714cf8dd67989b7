#!/bin/sh
# Run once by the postgres image, as superuser: the database, its owner, and the three roles that serve.
set -eu

psql --set ON_ERROR_STOP=1 \
    --set owner="$LOCKSTEP_OWNER_PASSWORD" --set api="$LOCKSTEP_API_PASSWORD" --set worker="$LOCKSTEP_WORKER_PASSWORD" \
    --set operator="$LOCKSTEP_OPERATOR_PASSWORD" \
    --username postgres <<'SQL'
CREATE ROLE lockstep_owner LOGIN PASSWORD :'owner';
CREATE ROLE lockstep_api LOGIN PASSWORD :'api';
CREATE ROLE lockstep_worker LOGIN PASSWORD :'worker';
CREATE ROLE lockstep_operator LOGIN PASSWORD :'operator';
CREATE DATABASE lockstep OWNER lockstep_owner;
SQL
