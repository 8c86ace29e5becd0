#!/bin/sh
# Registers the namespace and the search attributes that aftersend uses. Safe
# to run at every start.
set -eu

: "${TEMPORAL_ADDRESS:?host:port of the Temporal frontend}"
namespace="${AFTERSEND_TEMPORAL__NAMESPACE:-aftersend}"

wait_until() { # what, command…
    what="$1"
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -ge 60 ]; then
            echo "gave up waiting: $what" >&2
            exit 1
        fi
        sleep 2
    done
    echo "ready: $what"
}

ensure_namespace() {
    temporal operator namespace describe -n "$namespace" ||
        temporal operator namespace create -n "$namespace" --retention 24h
}

ensure_attribute() { # name, type; an existing one is a success for Temporal
    temporal operator search-attribute create -n "$namespace" --name "$1" --type "$2"
}

wait_until "Temporal answers" temporal operator cluster health
wait_until "namespace $namespace" ensure_namespace
wait_until "AftersendEsp" ensure_attribute AftersendEsp KeywordList
wait_until "AftersendWebhookId" ensure_attribute AftersendWebhookId Keyword
wait_until "AftersendState" ensure_attribute AftersendState Keyword
wait_until "AftersendPausedSince" ensure_attribute AftersendPausedSince Datetime
wait_until "AftersendAccount" ensure_attribute AftersendAccount Keyword
