-- +goose Up

-- Conventions. Ids are UUIDv7 made by the application. Every table is scoped
-- by account. Whatever came from outside is bytea or cleaned text: real
-- callbacks hold NUL and invalid UTF-8, which text and jsonb refuse.
-- callbacks, events and attempts are partitioned by day over the id, whose
-- first 48 bits are the time: the primary key is the id alone and every
-- look-up by id prunes to one partition. Partitions are made by the function
-- at the end of this file, at boot and hourly, 14 days ahead.

create table accounts (
    id         uuid primary key,
    name       text        not null,
    -- max_webhooks, max_sources; absent = unlimited
    limits     jsonb       not null default '{}',
    created_at timestamptz not null default now()
);

create table users (
    id            uuid primary key,
    account_id    uuid        not null references accounts,
    email         text        not null,
    name          text        not null default '',
    role          text        not null check (role in ('owner', 'admin', 'operator', 'viewer')),
    password_hash text        not null default '',
    created_at    timestamptz not null default now(),
    deleted_at    timestamptz
);
create unique index users_email on users (lower(email)) where deleted_at is null;

create table api_tokens (
    id           uuid primary key,
    account_id   uuid        not null references accounts,
    name         text        not null,
    hash         bytea       not null unique, -- sha256 of the token; its entropy needs no slow hash
    last4        text        not null,
    -- a token only good from a loopback peer; what `go run ./dev` makes
    loopback     boolean     not null default false,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    expires_at   timestamptz,
    revoked_at   timestamptz
);

create table sessions (
    hash       bytea primary key, -- sha256 of the cookie
    user_id    uuid        not null references users,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);

-- Who changed what. Shown in the UI and sent to webhooks of area activity_log.
create table activity_log (
    id            uuid primary key,
    account_id    uuid        not null references accounts,
    at            timestamptz not null default now(),
    actor_kind    text        not null check (actor_kind in ('user', 'token', 'system')),
    actor_id      uuid,
    actor_name    text        not null,
    action        text        not null, -- 'webhook.created'
    resource_kind text        not null default '',
    resource_id   uuid,
    resource_name text        not null default '',
    changes       jsonb       not null default '{}' -- {"name":{"from":…,"to":…}}, secrets never
);
create index activity_log_account on activity_log (account_id, id);

create table sources (
    id           uuid primary key,
    account_id   uuid        not null references accounts,
    esp          text        not null,
    name         text        not null,
    token_hash   bytea       not null unique, -- sha256 of the token in the URL
    token_sealed bytea       not null,        -- shown again in the set-up guide
    loopback     boolean     not null default false,
    verification bytea,                       -- sealed JSON object, the adapter's fields
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    deleted_at   timestamptz
);
create index sources_account on sources (account_id, id);

-- A writer is one incarnation of a process's flusher: new at start and after
-- any failed or unclear flush, so that its rows are numbered without gaps.
create table writers (
    id              bigint generated always as identity primary key,
    host            text        not null,
    started_at      timestamptz not null default now(),
    seen_at         timestamptz not null default now(), -- live processes renew it
    grouped_through bigint      not null default 0,     -- rows 1..n are in groups; moved by compare-and-set
    grouped_id      uuid        not null default '00000000-0000-0000-0000-000000000000', -- id of that row: prunes partitions
    closed_at       timestamptz                         -- nothing can come any more
) with (fillfactor = 50);
create index writers_open on writers (id) where closed_at is null;

-- The truth: what was received, byte for byte, before anything was understood.
create table callbacks (
    id          uuid        not null primary key,
    writer_id   bigint      not null,
    n           bigint      not null,
    account_id  uuid        not null,
    source_id   uuid        not null,
    received_at timestamptz not null,
    remote_ip   inet,
    verified    boolean     not null, -- false: verification needs the network, ParseCallbacks does it
    method      text        not null,
    path        bytea       not null, -- token masked
    query       bytea       not null,
    headers     bytea       not null, -- "Name: value\r\n" lines as received, Authorization and Cookie masked
    body        bytea       not null
) partition by range (id);
create index callbacks_writer on callbacks (writer_id, n);
create index callbacks_source on callbacks (source_id, id);

-- What one ProcessCallbacks workflow processes.
create table groups (
    id          uuid primary key,
    kind        text        not null check (kind in ('callbacks', 'expired', 'reprocess', 'activity')),
    writer_id   bigint,
    n_from      bigint,          -- callbacks n_from..n_to of the writer, inclusive
    n_to        bigint,
    id_from     uuid,            -- ids of these two rows: prune partitions; of kind expired: of the first and last message
    id_to       uuid,
    ref_id      uuid,            -- what made a group that is not of callbacks (cohort, reprocess, activity entry)
    summary     text        not null default '', -- "12 callbacks · mandrill 9, brevo 3"
    step        text        not null default 'parse' check (step in ('parse', 'correlate', 'route', 'done')),
    patient     boolean     not null default false, -- fell back to patient retries; not counted as open
    number      bigint,          -- position in the outbox order and the feed; taken by RouteEvents
    callbacks   integer     not null default 0,
    events      integer     not null default 0,
    repeats     integer     not null default 0,
    quarantined integer     not null default 0,
    -- transactions of at most 10,000 events: callbacks up to this n are correlated, and so many events of the next
    correlated        bigint  not null default 0,
    correlated_events integer not null default 0,
    created_at  timestamptz not null default now(),
    started_at  timestamptz,     -- a workflow was started for it
    finished_at timestamptz
) with (fillfactor = 60);
create index groups_open on groups (created_at) where step <> 'done';
create unique index groups_number on groups (number) where number is not null;
create index groups_writer on groups (writer_id, n_from);

-- One row. RouteEvents takes the next number and holds the row to COMMIT, so
-- numbers become visible in order, without gaps that fill later.
create table group_sequence (
    single boolean primary key default true check (single),
    number bigint not null
) with (fillfactor = 10);
insert into group_sequence (number) values (0);

-- What could not be understood: a whole callback (record null) or one record of it.
create table quarantine (
    id          uuid primary key,
    account_id  uuid        not null,
    source_id   uuid        not null,
    callback_id uuid        not null,
    record      integer     not null default -1, -- -1: the whole callback
    group_id    uuid        not null,
    reason      text        not null,
    created_at  timestamptz not null default now(),
    resolved_at timestamptz,
    unique (callback_id, record)
);
create index quarantine_account on quarantine (account_id, callback_id) where resolved_at is null;

create table events (
    id          uuid        not null primary key,
    account_id  uuid        not null,
    source_id   uuid        not null,
    callback_id uuid        not null, -- nil for events that no callback made
    ordinal     integer     not null, -- position in the callback
    group_id    uuid        not null,
    position    integer     not null, -- position in the group: (groups.number, position) is the feed's order
    message_id  uuid        not null, -- our message
    type        text        not null,
    occurred_at timestamptz not null, -- effective time
    data        bytea       not null  -- native JSON, complete; what webhooks send
) partition by range (id);
create index events_group on events (group_id, position);
create index events_callback on events (callback_id);
-- Lists by type, source or ESP, newest first: one way in per source and type.
create index events_source on events (source_id, type, id);

-- Recognises repeats. key: 128 bits of sha256 over (source, ESP's event id or
-- record hash, recipient, ESP's type). Trimmed after 30 days.
create table event_keys (
    key      uuid    not null primary key,
    event_id uuid    not null,
    repeats  integer not null default 0
) partition by hash (key);
create table event_keys_0 partition of event_keys for values with (modulus 4, remainder 0) with (fillfactor = 80);
create table event_keys_1 partition of event_keys for values with (modulus 4, remainder 1) with (fillfactor = 80);
create table event_keys_2 partition of event_keys for values with (modulus 4, remainder 2) with (fillfactor = 80);
create table event_keys_3 partition of event_keys for values with (modulus 4, remainder 3) with (fillfactor = 80);

-- The story of one message to one recipient.
create table messages (
    id                uuid primary key,
    account_id        uuid        not null,
    source_id         uuid        not null, -- of the first event
    recipient         text        not null, -- lower case
    status            text        not null,
    status_at         timestamptz not null, -- effective time of the event that decided it
    previous_status   text        not null default '',
    asynchronous      boolean     not null default false, -- decided by a bounce after acceptance
    deferrals         integer     not null default 0,
    first_event_at    timestamptz not null,
    first_deferred_at timestamptz,
    final_at          timestamptz,
    state             bytea       not null, -- what correlate.Apply works on; status and facts are read off it
    timeline          uuid[]      not null, -- event ids in order of arrival, bounded
    keys              uuid[]      not null, -- of message_keys
    -- how sure it is that all of it is one message: '' by ids; 'likely': an asynchronous bounce was joined to it by
    -- recipient and time alone; 'none': an asynchronous bounce that names no message, and nothing was found for it yet
    match             text        not null default '' check (match in ('', 'likely', 'none')),
    -- whose TrackDeferrals watches over it, or did; set when it becomes deferred. No foreign key: cohorts go before messages do.
    cohort_id         uuid,
    -- A column of its own, so that status itself is in no index and a change of it stays HOT.
    deferred          boolean     generated always as (status = 'deferred') stored,
    -- The statuses in which few messages are and which people look for; '' for those most messages go through, so that
    -- an ordinary message changes its status without touching an index.
    apart             text        generated always as
        (case when status in ('deferred', 'bounced', 'rejected', 'failed', 'expired') then status else '' end) stored,
    updated_at        timestamptz not null default now()
) with (fillfactor = 70);
create index messages_recipient on messages (account_id, recipient, id);
-- Every list of messages that is not by recipient.
create index messages_account on messages (account_id, apart, id);
-- Only messages that were ever deferred are in it, and an update that leaves the cohort alone stays HOT.
create index messages_cohort on messages (cohort_id) where cohort_id is not null;
create index messages_unmatched on messages (id) where match = 'none';

-- key: 128 bits of sha256 over (account, kind, value, recipient).
create table message_keys (
    key        uuid primary key,
    kind       "char" not null, -- 'e' ESP's message id within a source, 'm' Message-ID, 'r' return path
    message_id uuid   not null -- which lists the key; no index on it, since only merging and retention ask
);

-- Messages of one source that became deferred in one 5-minute window, by our
-- clock. One TrackDeferrals watches over all of them.
create table deferral_cohorts (
    id         uuid primary key,
    source_id  uuid        not null,
    opens_at   timestamptz not null,
    created_at timestamptz not null default now(),
    started_at timestamptz, -- a workflow was started for it
    next_at    timestamptz, -- its next review is due; null: it had none yet
    closed_at  timestamptz, -- nobody in it waits for a final word; a message that joins it late opens it again
    unique (source_id, opens_at)
);
create index deferral_cohorts_open on deferral_cohorts (created_at) where closed_at is null;

create table suppressions (
    id         uuid primary key,
    account_id uuid        not null,
    recipient  text        not null, -- lower case
    reason     text        not null check (reason in ('unsubscribed', 'complained', 'bounced', 'manual')),
    event_id   uuid,
    since      timestamptz not null, -- effective time of that event; 1970: only lifted so far
    created_at timestamptz not null default now(),
    lifted_at  timestamptz,          -- when it was last lifted; an older event that comes later stays lifted
    active     boolean     generated always as (lifted_at is null or lifted_at <= since) stored,
    unique (account_id, recipient, reason)
);
-- Lists by reason and by what holds, newest first; without a reason the few
-- lists are merged.
create index suppressions_account on suppressions (account_id, active, reason, id);
-- "What is new since I last asked", which the id does not tell: an address may
-- come back.
create index suppressions_since on suppressions (account_id, since);

create table webhooks (
    id           uuid primary key,
    account_id   uuid        not null references accounts,
    name         text        not null,
    status       text        not null check (status in ('active', 'paused', 'inactive')),
    area         text        not null default 'email_sending' check (area in ('email_sending', 'activity_log')),
    settings     jsonb       not null, -- events, filters, channel, url, dialect, format, auth (without secrets), success, timeout, retry, batch, notify
    sealed       bytea,                -- sealed JSON: url with credentials, auth and Pushover secrets
    paused_at    timestamptz,
    pause_reason text        not null default '',
    -- resume with the backlog delivered: the open batch goes first, alone
    version      bigint      not null default 1,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    deleted_at   timestamptz
);
create index webhooks_account on webhooks (account_id, id);

create table webhook_secrets (
    id         uuid primary key,
    webhook_id uuid        not null references webhooks on delete cascade,
    sealed     bytea       not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz -- set on rotation; both sign until then
);
create index webhook_secrets_webhook on webhook_secrets (webhook_id);

-- Where a webhook's delivery stands; apart from its settings since every
-- group and batch updates it. No index but the key, so that updates stay HOT.
create table webhook_progress (
    webhook_id    uuid primary key references webhooks on delete cascade,
    asleep        boolean     not null default true, -- its workflow sleeps or does not run: wake it
    collecting    boolean     not null default false, -- waits for max_events or max_wait
    -- everything in the outbox up to here is in batches: number, part, offset within the part
    cut_number    bigint      not null default 0,
    cut_part      integer     not null default 0,
    cut_offset    integer     not null default 0,
    matched       bigint      not null default 0, -- cumulative: matched = delivered + waiting + skipped + set_aside
    delivered     bigint      not null default 0,
    skipped       bigint      not null default 0,
    set_aside     bigint      not null default 0,
    failing_since timestamptz,          -- start of the outage
    outage_id     uuid,                 -- names the outage; notices are unique within it
    attempts_used integer     not null default 0, -- retries used on the open batch
    next_at       timestamptz,
    gives_up_at   timestamptz,
    last_error    text        not null default '',
    last_delivered_at timestamptz
) with (fillfactor = 30);

-- Events due to a webhook, in order (number, part), up to 500 event ids a row.
create table outbox (
    webhook_id uuid    not null,
    number     bigint  not null, -- groups.number
    part       integer not null,
    events     integer not null,
    event_ids  bytea   not null, -- 16 bytes each
    primary key (webhook_id, number, part)
);

create table batches (
    id           uuid primary key,
    account_id   uuid        not null,
    webhook_id   uuid        not null,
    state        text        not null check (state in ('open', 'delivered', 'skipped', 'set_aside')),
    dialect      text        not null, -- fixed when the batch is cut
    format       text        not null,
    events       integer     not null,
    event_ids    bytea       not null,
    posted       integer     not null default 0, -- dialects with one event per POST: events done
    attempts     integer     not null default 0,
    content_type text        not null default '',
    body         bytea,                         -- kept once an attempt has failed: same id, same bytes
    created_at   timestamptz not null default now(),
    finished_at  timestamptz
) with (fillfactor = 70);
create unique index batches_open on batches (webhook_id) where state = 'open';
create index batches_webhook on batches (webhook_id, id);

create table attempts (
    id           uuid        not null primary key,
    account_id   uuid        not null,
    webhook_id   uuid        not null,
    batch_id     uuid        not null,
    number       integer     not null, -- 1 = the first attempt
    started_at   timestamptz not null,
    outcome      text        not null check (outcome in ('started', 'delivered', 'failed')),
    status_code  integer,
    error_class  text        not null default '', -- timeout, dns, connect, tls, blocked_address, status, …
    error        text        not null default '',
    events       integer     not null,
    bytes        integer     not null default 0,
    dns_us       integer,
    connect_us   integer,
    tls_us       integer,
    first_byte_us integer,
    total_us     integer,
    response     bytea -- first 4 KiB
) partition by range (id);
create index attempts_batch on attempts (batch_id);
create index attempts_webhook on attempts (webhook_id, id);

-- A mail or push to a person about a webhook or source: once per outage and kind.
create table notices (
    id         uuid primary key,
    account_id uuid        not null,
    webhook_id uuid,
    source_id  uuid,
    outage_id  uuid        not null,
    kind       text        not null, -- 'webhook_paused', …
    subject    text        not null,
    body       text        not null,
    recipients text[]      not null,
    attempts   integer     not null default 0,
    last_error text        not null default '',
    created_at timestamptz not null default now(),
    started_at timestamptz,
    sent_at    timestamptz,
    unique (outage_id, kind)
);
create index notices_unsent on notices (created_at) where sent_at is null;

-- Requests refused at the door. Bounded; a bad signature under a good token
-- keeps its body and can be admitted after the secret is mended.
create table rejected_requests (
    id          uuid primary key,
    account_id  uuid,
    source_id   uuid,
    esp         text        not null default '',
    received_at timestamptz not null,
    remote_ip   inet,
    reason      text        not null,
    status_code integer     not null,
    method      text        not null,
    path        bytea       not null,
    query       bytea       not null,
    headers     bytea       not null,
    body        bytea
);
create index rejected_requests_source on rejected_requests (source_id, id);

-- Events per source, hour and type, counted as they are routed.
create table volume (
    source_id uuid        not null,
    hour      timestamptz not null,
    type      text        not null,
    events    bigint      not null,
    primary key (source_id, hour, type)
) with (fillfactor = 70);

-- The same events by what else people ask for. Bounded: of domains and codes
-- the first hundreds an account has in a day are told apart, the rest is ''.
create table tallies (
    source_id uuid        not null,
    hour      timestamptz not null,
    kind      "char"      not null, -- 'd' recipient's domain, 'c' code of a failure, 't' seconds to the final word, up to
    value     text        not null,
    type      text        not null,
    events    bigint      not null,
    primary key (source_id, hour, kind, value, type)
) with (fillfactor = 70);

-- Something was found to be wrong with a source or a recipient domain. Open
-- until it is well again; it names the outage that notices are unique within.
create table outages (
    id         uuid primary key,
    account_id uuid        not null,
    source_id  uuid,                 -- what it is about: a source …
    domain     text        not null default '', -- … or a recipient domain
    kind       text        not null check (kind in ('volume', 'failures')),
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(), -- when it was last found so
    ended_at   timestamptz
);
create unique index outages_open on outages (account_id, kind, coalesce(source_id, '00000000-0000-0000-0000-000000000000'), domain) where ended_at is null;

create table idempotency_keys (
    account_id uuid        not null,
    key        text        not null,
    request    bytea       not null, -- sha256 of method, path and body
    status     integer     not null,
    response   bytea       not null,
    created_at timestamptz not null default now(),
    primary key (account_id, key)
);

-- make_partitions(first, last) makes the day partitions of callbacks, events
-- and attempts for the days first..last where they are missing. CREATE, then
-- ATTACH: attaching takes a weaker lock on the parent than creating in place.
-- +goose StatementBegin
create function make_partitions(first date, last date) returns integer
language plpgsql as $$
declare
    made   integer := 0;
    parent text;
    day    date;
    child  text;
    lo     text;
    hi     text;
begin
    perform pg_advisory_xact_lock(hashtext('aftersend.make_partitions'));
    foreach parent in array array['callbacks', 'events', 'attempts'] loop
        for day in select d::date from generate_series(first::timestamp, last::timestamp, interval '1 day') d loop
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            if to_regclass(child) is null then
                lo := uuid_floor(day);
                hi := uuid_floor(day + 1);
                execute format('create table %I (like %I including defaults including constraints including storage)', child, parent);
                execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, lo, hi);
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end $$;
-- +goose StatementEnd

-- uuid_floor is the lowest UUIDv7 of a UTC day: its milliseconds in the first 48 bits.
-- +goose StatementBegin
create function uuid_floor(day date) returns text
language sql immutable as $$
    select substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-0000-0000-000000000000'
    from (select lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') as h) x
$$;
-- +goose StatementEnd

-- Callbacks and events outside every partition are refused, which would lose
-- them: clocks may be off by more than partitions reach. These take them in.
create table callbacks_default partition of callbacks default;
create table events_default partition of events default;
create table attempts_default partition of attempts default;

select make_partitions((now() at time zone 'utc')::date - 1, (now() at time zone 'utc')::date + 14);

-- +goose Down
drop table idempotency_keys, outages, tallies, volume, rejected_requests, notices, attempts, batches, outbox, webhook_progress,
    webhook_secrets, webhooks, suppressions, deferral_cohorts, message_keys, messages, event_keys, events, quarantine,
    group_sequence, groups, callbacks, writers, sources, activity_log, sessions, api_tokens, users, accounts;
drop function make_partitions(date, date);
drop function uuid_floor(date);
