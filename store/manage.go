package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/esp"
	"aftersend/id"
	"aftersend/webhook"
)

// ErrLimit means that the account may not have one more of these.
var ErrLimit = errors.New("the account's limit is reached")

// Actor is who changed something.
type Actor struct {
	Kind string // user, token, system
	ID   id.ID  // of the user or token; nil for the system
	Name string
}

// Change is an entry of the activity log before it has an id. It is written in
// the transaction of what it tells of, so neither exists without the other.
type Change struct {
	By           Actor
	Action       string // "webhook.created"
	ResourceKind string // "webhook"
	ResourceID   id.ID
	ResourceName string
	Changes      map[string]FromTo // by field; secrets as "[FILTERED]"
}

// FromTo is what a field was and what it became.
type FromTo struct {
	From any `json:"from"`
	To   any `json:"to"`
}

func insertActivity(ctx context.Context, tx *sqlx.Tx, account id.ID, c Change) error {
	changes := c.Changes
	if changes == nil {
		changes = map[string]FromTo{}
	}
	text, err := json.Marshal(changes)
	if err != nil {
		return fmt.Errorf("encode changes: %w", err)
	}
	_, err = tx.ExecContext(ctx, `
		insert into activity_log (id, account_id, actor_kind, actor_id, actor_name, action, resource_kind, resource_id, resource_name, changes)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		id.New(), account, c.By.Kind, nullID(c.By.ID), c.By.Name, c.Action, c.ResourceKind, nullID(c.ResourceID), c.ResourceName, string(text))
	return err
}

// --- accounts ---

// AccountRow is an account and how much it has.
type AccountRow struct {
	ID        id.ID     `db:"id"`
	Name      string    `db:"name"`
	Limits    []byte    `db:"limits"` // JSON: max_webhooks, max_sources; absent = unlimited
	CreatedAt time.Time `db:"created_at"`
	Webhooks  int       `db:"webhooks"`
	Sources   int       `db:"sources"`
}

// Account returns one account.
func (s *Store) Account(ctx context.Context, account id.ID) (AccountRow, error) {
	var row AccountRow
	err := s.db.GetContext(ctx, &row, `
		select a.id, a.name, a.limits, a.created_at,
		       (select count(*) from webhooks where account_id = a.id and deleted_at is null) as webhooks,
		       (select count(*) from sources  where account_id = a.id and deleted_at is null) as sources
		from accounts a where a.id = $1`, account)
	return row, found(err, "account", id.Account, account)
}

// EnsureAccount returns the oldest account, which it makes, under this name,
// when there is none. Processes that start together make one.
func (s *Store) EnsureAccount(ctx context.Context, name string) (account id.ID, made bool, err error) {
	err = s.inTx(ctx, "ensure an account", func(tx *sqlx.Tx) error {
		made = false
		if _, err := tx.ExecContext(ctx, `select pg_advisory_xact_lock(hashtext('aftersend.ensure_account'))`); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &account, `select id from accounts order by id limit 1`)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		account, made = id.New(), true
		if _, err := tx.ExecContext(ctx, `insert into accounts (id, name) values ($1, $2)`, account, name); err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, Change{
			By: Actor{Kind: "system", Name: "aftersend"}, Action: "account.created",
			ResourceKind: "account", ResourceID: account, ResourceName: name,
		})
	})
	return account, made, err
}

// EnsureOwner makes the owner of an account that has none; nobody else's
// address is taken over.
func (s *Store) EnsureOwner(ctx context.Context, account id.ID, email string) error {
	_, err := s.db.ExecContext(ctx, `
		insert into users (id, account_id, email, name, role)
		select $1, $2, $3, 'Owner', 'owner'
		where not exists (select from users where account_id = $2 and role = 'owner' and deleted_at is null)
		on conflict do nothing`, id.New(), account, email)
	if err != nil {
		return fmt.Errorf("ensure an owner of account %s: %w", id.Account.Format(account), err)
	}
	return nil
}

// CreateAccount makes another account.
func (s *Store) CreateAccount(ctx context.Context, name string, by Actor) (id.ID, error) {
	account := id.New()
	err := s.inTx(ctx, "create account", func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `insert into accounts (id, name) values ($1, $2)`, account, name); err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, Change{
			By: by, Action: "account.created", ResourceKind: "account", ResourceID: account, ResourceName: name,
		})
	})
	return account, err
}

// underLimit locks the account and returns ErrLimit when it may not have one
// more row of the table.
func underLimit(ctx context.Context, tx *sqlx.Tx, account id.ID, table string) error {
	var limit sql.NullInt64
	err := tx.GetContext(ctx, &limit, `select (limits->>$2)::bigint from accounts where id = $1 for update`, account, "max_"+table)
	if err != nil {
		return err
	}
	if !limit.Valid {
		return nil
	}
	var have int64
	query := map[string]string{
		"webhooks": `select count(*) from webhooks where account_id = $1 and deleted_at is null`,
		"sources":  `select count(*) from sources where account_id = $1 and deleted_at is null`,
	}[table]
	if err := tx.GetContext(ctx, &have, query, account); err != nil {
		return err
	}
	if have >= limit.Int64 {
		return fmt.Errorf("%w: %d %s", ErrLimit, limit.Int64, table)
	}
	return nil
}

// --- API tokens ---

// TokenRow is an API token, without the token.
type TokenRow struct {
	ID         id.ID      `db:"id"`
	AccountID  id.ID      `db:"account_id"`
	Name       string     `db:"name"`
	Last4      string     `db:"last4"`
	Loopback   bool       `db:"loopback"`
	CreatedAt  time.Time  `db:"created_at"`
	LastUsedAt *time.Time `db:"last_used_at"`
	ExpiresAt  *time.Time `db:"expires_at"`
}

const tokenColumns = `id, account_id, name, last4, loopback, created_at, last_used_at, expires_at`

// TokenHash is what is kept of an API token: its SHA-256. A token has entropy
// enough to need no slow hash.
func TokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// CreateToken stores a new API token.
func (s *Store) CreateToken(ctx context.Context, row TokenRow, hash []byte, c Change) error {
	return s.inTx(ctx, "create token", func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `
			insert into api_tokens (id, account_id, name, hash, last4, loopback, expires_at) values ($1, $2, $3, $4, $5, $6, $7)`,
			row.ID, row.AccountID, row.Name, hash, row.Last4, row.Loopback, row.ExpiresAt)
		if err != nil {
			return err
		}
		return insertActivity(ctx, tx, row.AccountID, c)
	})
}

// TokenByHash finds the token that is presented, when it is still good, and
// notes that it was used, at most once a minute.
func (s *Store) TokenByHash(ctx context.Context, hash []byte) (TokenRow, error) {
	var row TokenRow
	err := s.db.GetContext(ctx, &row, `
		select `+tokenColumns+` from api_tokens
		where hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())`, hash)
	if errors.Is(err, sql.ErrNoRows) {
		return TokenRow{}, ErrNotFound
	}
	if err != nil {
		return TokenRow{}, fmt.Errorf("look up token: %w", err)
	}
	if row.LastUsedAt == nil || time.Since(*row.LastUsedAt) > time.Minute {
		_, err = s.db.ExecContext(ctx, `
			update api_tokens set last_used_at = now()
			where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')`, row.ID)
		if err != nil {
			return TokenRow{}, fmt.Errorf("note use of token %s: %w", id.Key.Format(row.ID), err)
		}
	}
	return row, nil
}

// Tokens lists an account's API tokens that are not revoked, oldest first.
func (s *Store) Tokens(ctx context.Context, account id.ID) ([]TokenRow, error) {
	var rows []TokenRow
	err := s.db.SelectContext(ctx, &rows, `
		select `+tokenColumns+` from api_tokens where account_id = $1 and revoked_at is null order by id`, account)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return rows, nil
}

// RevokeToken ends an API token.
func (s *Store) RevokeToken(ctx context.Context, account, token id.ID, c Change) error {
	return s.inTx(ctx, "revoke token "+id.Key.Format(token), func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &c.ResourceName, `
			update api_tokens set revoked_at = now() where id = $1 and account_id = $2 and revoked_at is null returning name`, token, account)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, c)
	})
}

// --- sources ---

// SourceRow is a source with its secrets opened.
type SourceRow struct {
	ID           id.ID
	AccountID    id.ID
	ESP          string
	Name         string
	Token        string // what stands in its URL
	Loopback     bool   // good for loopback peers only
	Verification esp.Secrets
	CreatedAt    time.Time
	UpdatedAt    time.Time
	LastCallback *time.Time // when it last received one; nil = never
}

// SourceTokenHash is the look-up hash of a source's token. It covers the ESP,
// so that the same token may stand in the URLs of several.
func SourceTokenHash(esp, token string) []byte { return TokenHash(esp + "/" + token) }

// CreateSource stores a new source.
func (s *Store) CreateSource(ctx context.Context, row SourceRow, c Change) error {
	verification, err := s.sealVerification(row.ID, row.Verification)
	if err != nil {
		return err
	}
	return s.inTx(ctx, "create source", func(tx *sqlx.Tx) error {
		if err := underLimit(ctx, tx, row.AccountID, "sources"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `
			insert into sources (id, account_id, esp, name, token_hash, token_sealed, loopback, verification)
			values ($1, $2, $3, $4, $5, $6, $7, $8)`,
			row.ID, row.AccountID, row.ESP, row.Name, SourceTokenHash(row.ESP, row.Token),
			s.box.Seal([]byte(row.Token), "sources", "token_sealed", row.ID), row.Loopback, verification)
		if err != nil {
			return err
		}
		return insertActivity(ctx, tx, row.AccountID, c)
	})
}

// SourceTokenTaken reports whether a source, deleted or not, has this token.
func (s *Store) SourceTokenTaken(ctx context.Context, hash []byte) (taken bool, err error) {
	if err := s.db.GetContext(ctx, &taken, `select exists (select from sources where token_hash = $1)`, hash); err != nil {
		return false, fmt.Errorf("look up source token: %w", err)
	}
	return taken, nil
}

// UpdateSource changes a source's name and verification secrets.
func (s *Store) UpdateSource(ctx context.Context, row SourceRow, c Change) error {
	verification, err := s.sealVerification(row.ID, row.Verification)
	if err != nil {
		return err
	}
	return s.inTx(ctx, "update source "+id.Source.Format(row.ID), func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `
			update sources set name = $3, verification = $4, updated_at = now()
			where id = $1 and account_id = $2 and deleted_at is null`, row.ID, row.AccountID, row.Name, verification)
		if err := oneRow(res, err, ErrNotFound); err != nil {
			return err
		}
		return insertActivity(ctx, tx, row.AccountID, c)
	})
}

// DeleteSource ends a source: its URL is unknown from now on, what it received
// stays.
func (s *Store) DeleteSource(ctx context.Context, account, source id.ID, c Change) error {
	return s.inTx(ctx, "delete source "+id.Source.Format(source), func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &c.ResourceName, `
			update sources set deleted_at = now(), updated_at = now()
			where id = $1 and account_id = $2 and deleted_at is null returning name`, source, account)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, c)
	})
}

func (s *Store) sealVerification(source id.ID, v esp.Secrets) ([]byte, error) {
	if len(v) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode verification of %s: %w", id.Source.Format(source), err)
	}
	return s.box.Seal(text, "sources", "verification", source), nil
}

type sourceRecord struct {
	ID           id.ID      `db:"id"`
	AccountID    id.ID      `db:"account_id"`
	ESP          string     `db:"esp"`
	Name         string     `db:"name"`
	TokenSealed  []byte     `db:"token_sealed"`
	Loopback     bool       `db:"loopback"`
	Verification []byte     `db:"verification"`
	CreatedAt    time.Time  `db:"created_at"`
	UpdatedAt    time.Time  `db:"updated_at"`
	LastCallback *time.Time `db:"last_callback"`
}

// The newest callback of a source: one probe per partition of callbacks_source.
const sourceSelect = `
	select s.id, s.account_id, s.esp, s.name, s.token_sealed, s.loopback, s.verification, s.created_at, s.updated_at,
	       (select c.received_at from callbacks c where c.source_id = s.id order by c.id desc limit 1) as last_callback
	from sources s`

func (s *Store) openSource(r sourceRecord) (SourceRow, error) {
	row := SourceRow{
		ID: r.ID, AccountID: r.AccountID, ESP: r.ESP, Name: r.Name, Loopback: r.Loopback,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, LastCallback: r.LastCallback,
	}
	token, err := s.box.Open(r.TokenSealed, "sources", "token_sealed", r.ID)
	if err != nil {
		return SourceRow{}, fmt.Errorf("token of %s: %w", id.Source.Format(r.ID), err)
	}
	row.Token = string(token)
	if len(r.Verification) > 0 {
		text, err := s.box.Open(r.Verification, "sources", "verification", r.ID)
		if err != nil {
			return SourceRow{}, fmt.Errorf("verification of %s: %w", id.Source.Format(r.ID), err)
		}
		if err := json.Unmarshal(text, &row.Verification); err != nil {
			return SourceRow{}, fmt.Errorf("verification of %s is damaged", id.Source.Format(r.ID))
		}
	}
	return row, nil
}

// Source returns one source of an account.
func (s *Store) Source(ctx context.Context, account, source id.ID) (SourceRow, error) {
	var r sourceRecord
	err := s.db.GetContext(ctx, &r, sourceSelect+` where s.id = $1 and s.account_id = $2 and s.deleted_at is null`, source, account)
	if err := found(err, "source", id.Source, source); err != nil {
		return SourceRow{}, err
	}
	return s.openSource(r)
}

// Sources lists an account's sources, newest first.
func (s *Store) Sources(ctx context.Context, account id.ID, p Page) ([]SourceRow, error) {
	var records []sourceRecord
	err := s.db.SelectContext(ctx, &records, sourceSelect+`
		where s.account_id = $1 and s.deleted_at is null and s.id < $2 order by s.id desc limit $3`, account, p.before(), p.Limit)
	if err != nil {
		return nil, fmt.Errorf("list sources: %w", err)
	}
	rows := make([]SourceRow, len(records))
	for i, r := range records {
		if rows[i], err = s.openSource(r); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// --- webhooks ---

// WebhookRow is a webhook as people manage it, with its secrets opened and
// where its delivery stands.
type WebhookRow struct {
	ID        id.ID
	AccountID id.ID
	Name      string
	Status    string // active, paused, inactive
	Area      string // email_sending, activity_log
	Settings  webhook.Settings
	Secrets   webhook.Secrets
	Version   int64 // raised by every change of the settings

	PausedAt    *time.Time
	PauseReason string
	CreatedAt   time.Time
	UpdatedAt   time.Time

	Progress ProgressRow
}

// ProgressRow is where a webhook's delivery stands. Matched = Delivered +
// Waiting + Skipped + SetAside, in events since the webhook exists.
type ProgressRow struct {
	Asleep          bool       `db:"asleep"`
	Collecting      bool       `db:"collecting"`
	Matched         int64      `db:"matched"`
	Delivered       int64      `db:"delivered"`
	Waiting         int64      `db:"waiting"`
	Skipped         int64      `db:"skipped"`
	SetAside        int64      `db:"set_aside"`
	FailingSince    *time.Time `db:"failing_since"`
	AttemptsUsed    int        `db:"attempts_used"`
	NextAt          *time.Time `db:"next_at"`
	GivesUpAt       *time.Time `db:"gives_up_at"`
	LastError       string     `db:"last_error"`
	LastDeliveredAt *time.Time `db:"last_delivered_at"`
}

type webhookRecord struct {
	ID          id.ID      `db:"id"`
	AccountID   id.ID      `db:"account_id"`
	Name        string     `db:"name"`
	Status      string     `db:"status"`
	Area        string     `db:"area"`
	Settings    []byte     `db:"settings"`
	Sealed      []byte     `db:"sealed"`
	Version     int64      `db:"version"`
	PausedAt    *time.Time `db:"paused_at"`
	PauseReason string     `db:"pause_reason"`
	CreatedAt   time.Time  `db:"created_at"`
	UpdatedAt   time.Time  `db:"updated_at"`
	ProgressRow
}

const webhookSelect = `
	select w.id, w.account_id, w.name, w.status, w.area, w.settings, w.sealed, w.version,
	       w.paused_at, w.pause_reason, w.created_at, w.updated_at,
	       p.asleep, p.collecting, p.matched, p.delivered, p.skipped, p.set_aside,
	       p.matched - p.delivered - p.skipped - p.set_aside as waiting,
	       p.failing_since, p.attempts_used, p.next_at, p.gives_up_at, p.last_error, p.last_delivered_at
	from webhooks w join webhook_progress p on p.webhook_id = w.id`

// CreateWebhook stores a new webhook with its first signing key, the raw bytes
// of a whsec_ secret. It gets the events of the groups that are routed from
// now on: it reads the group sequence under the lock that routing takes.
func (s *Store) CreateWebhook(ctx context.Context, row WebhookRow, signingKey []byte, c Change) error {
	settings, sealed, err := s.encodeWebhook(row)
	if err != nil {
		return err
	}
	return s.inTx(ctx, "create webhook", func(tx *sqlx.Tx) error {
		if err := underLimit(ctx, tx, row.AccountID, "webhooks"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `
			insert into webhooks (id, account_id, name, status, area, settings, sealed) values ($1, $2, $3, $4, $5, $6, $7)`,
			row.ID, row.AccountID, row.Name, row.Status, row.Area, settings, sealed)
		if err != nil {
			return err
		}
		if err := s.insertSigningKey(ctx, tx, row.ID, signingKey); err != nil {
			return err
		}
		if err := insertActivity(ctx, tx, row.AccountID, c); err != nil {
			return err
		}
		// Last, since routing waits for this lock.
		_, err = tx.ExecContext(ctx, `
			insert into webhook_progress (webhook_id, cut_number)
			select $1, number from (select number from group_sequence for share) g`, row.ID)
		return err
	})
}

func (s *Store) insertSigningKey(ctx context.Context, tx *sqlx.Tx, webhook id.ID, key []byte) error {
	row := id.New()
	_, err := tx.ExecContext(ctx, `insert into webhook_secrets (id, webhook_id, sealed) values ($1, $2, $3)`,
		row, webhook, s.box.Seal(key, "webhook_secrets", "sealed", row))
	return err
}

// UpdateWebhook saves name, status, area and settings of a webhook whose
// version is still row.Version, and raises it. ErrConflict otherwise. Status
// moves between active and inactive here; pausing has its own way.
func (s *Store) UpdateWebhook(ctx context.Context, row WebhookRow, c Change) error {
	settings, sealed, err := s.encodeWebhook(row)
	if err != nil {
		return err
	}
	return s.inTx(ctx, "update webhook "+id.Webhook.Format(row.ID), func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `
			update webhooks
			set name = $4, status = $5, area = $6, settings = $7, sealed = $8, version = version + 1, updated_at = now()
			where id = $1 and account_id = $2 and version = $3 and deleted_at is null`,
			row.ID, row.AccountID, row.Version, row.Name, row.Status, row.Area, settings, sealed)
		if err := oneRow(res, err, ErrConflict); err != nil {
			return err
		}
		return insertActivity(ctx, tx, row.AccountID, c)
	})
}

// DeleteWebhook ends a webhook. Its rows stay until retention removes them.
func (s *Store) DeleteWebhook(ctx context.Context, account, webhook id.ID, c Change) error {
	return s.inTx(ctx, "delete webhook "+id.Webhook.Format(webhook), func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &c.ResourceName, `
			update webhooks set deleted_at = now(), version = version + 1, updated_at = now()
			where id = $1 and account_id = $2 and deleted_at is null returning name`, webhook, account)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, c)
	})
}

// RotateSigningKey adds a signing key and lets the former ones sign along for
// the overlap, so that the receiver can change over without a gap.
func (s *Store) RotateSigningKey(ctx context.Context, account, webhook id.ID, key []byte, overlap time.Duration, c Change) error {
	return s.inTx(ctx, "rotate secret of "+id.Webhook.Format(webhook), func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &c.ResourceName, `
			update webhooks set version = version + 1, updated_at = now()
			where id = $1 and account_id = $2 and deleted_at is null returning name`, webhook, account)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		// Two at most: the newest of the former ones stays for the overlap.
		_, err = tx.ExecContext(ctx, `
			delete from webhook_secrets
			where webhook_id = $1 and id <> (select id from webhook_secrets where webhook_id = $1 order by id desc limit 1)`, webhook)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			update webhook_secrets set expires_at = now() + $2 * interval '1 second' where webhook_id = $1`, webhook, overlap.Seconds())
		if err != nil {
			return err
		}
		if err := s.insertSigningKey(ctx, tx, webhook, key); err != nil {
			return err
		}
		return insertActivity(ctx, tx, account, c)
	})
}

func (s *Store) encodeWebhook(row WebhookRow) (settings string, sealed []byte, err error) {
	text, err := json.Marshal(row.Settings)
	if err != nil {
		return "", nil, fmt.Errorf("encode settings of %s: %w", id.Webhook.Format(row.ID), err)
	}
	secrets, err := json.Marshal(row.Secrets)
	if err != nil {
		return "", nil, fmt.Errorf("encode secrets of %s: %w", id.Webhook.Format(row.ID), err)
	}
	return string(text), s.box.Seal(secrets, "webhooks", "sealed", row.ID), nil
}

func (s *Store) openWebhook(r webhookRecord) (WebhookRow, error) {
	row := WebhookRow{
		ID: r.ID, AccountID: r.AccountID, Name: r.Name, Status: r.Status, Area: r.Area, Version: r.Version,
		PausedAt: r.PausedAt, PauseReason: r.PauseReason, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		Progress: r.ProgressRow,
	}
	if err := json.Unmarshal(r.Settings, &row.Settings); err != nil {
		return WebhookRow{}, fmt.Errorf("settings of %s are damaged", id.Webhook.Format(r.ID))
	}
	if len(r.Sealed) > 0 {
		text, err := s.box.Open(r.Sealed, "webhooks", "sealed", r.ID)
		if err != nil {
			return WebhookRow{}, fmt.Errorf("secrets of %s: %w", id.Webhook.Format(r.ID), err)
		}
		if err := json.Unmarshal(text, &row.Secrets); err != nil {
			return WebhookRow{}, fmt.Errorf("secrets of %s are damaged", id.Webhook.Format(r.ID))
		}
	}
	return row, nil
}

// Webhook returns one webhook of an account.
func (s *Store) Webhook(ctx context.Context, account, webhook id.ID) (WebhookRow, error) {
	var r webhookRecord
	err := s.db.GetContext(ctx, &r, webhookSelect+` where w.id = $1 and w.account_id = $2 and w.deleted_at is null`, webhook, account)
	if err := found(err, "webhook", id.Webhook, webhook); err != nil {
		return WebhookRow{}, err
	}
	return s.openWebhook(r)
}

// Webhooks lists an account's webhooks, newest first.
func (s *Store) Webhooks(ctx context.Context, account id.ID, p Page) ([]WebhookRow, error) {
	var records []webhookRecord
	err := s.db.SelectContext(ctx, &records, webhookSelect+`
		where w.account_id = $1 and w.deleted_at is null and w.id < $2 order by w.id desc limit $3`, account, p.before(), p.Limit)
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	rows := make([]WebhookRow, len(records))
	for i, r := range records {
		if rows[i], err = s.openWebhook(r); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// --- idempotency keys ---

// Idempotency is what an Idempotency-Key stands for.
type Idempotency struct {
	Account id.ID
	Key     string
	Request []byte // sha256 of method, path and body
}

// ErrInProgress means that a request with the same key is being worked on.
var ErrInProgress = errors.New("a request with this key is still being worked on")

// ErrOtherRequest means that the key was used for a different request.
var ErrOtherRequest = errors.New("the key was used for a different request")

// How long a key is remembered, and how long a request that never finished
// (its process died) blocks its key.
const (
	idempotencyKept  = 24 * time.Hour
	idempotencyStuck = 2 * time.Minute
)

// row gives the sealed answer a row to be bound to.
func (i Idempotency) row() id.ID {
	sum := sha256.Sum256(append(i.Account[:], i.Key...))
	return id.ID(sum[:16])
}

// BeginIdempotent claims a key. When the request was answered before, it
// returns that answer's status and body; status 0 means: work on it, then call
// FinishIdempotent.
func (s *Store) BeginIdempotent(ctx context.Context, i Idempotency) (status int, body []byte, err error) {
	var claimed bool
	err = s.db.GetContext(ctx, &claimed, `
		insert into idempotency_keys as k (account_id, key, request, status, response) values ($1, $2, $3, 0, '')
		on conflict (account_id, key) do update
			set request = excluded.request, status = 0, response = '', created_at = now()
			where k.created_at < now() - $4 * interval '1 second'
			   or k.status = 0 and k.created_at < now() - $5 * interval '1 second'
		returning true`, i.Account, i.Key, i.Request, idempotencyKept.Seconds(), idempotencyStuck.Seconds())
	if err == nil {
		return 0, nil, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, nil, fmt.Errorf("claim idempotency key: %w", err)
	}
	var seen struct {
		Request  []byte `db:"request"`
		Status   int    `db:"status"`
		Response []byte `db:"response"`
	}
	err = s.db.GetContext(ctx, &seen, `select request, status, response from idempotency_keys where account_id = $1 and key = $2`, i.Account, i.Key)
	switch {
	case errors.Is(err, sql.ErrNoRows): // it failed and was forgotten this very moment
		return 0, nil, ErrInProgress
	case err != nil:
		return 0, nil, fmt.Errorf("read idempotency key: %w", err)
	case string(seen.Request) != string(i.Request):
		return 0, nil, ErrOtherRequest
	case seen.Status == 0:
		return 0, nil, ErrInProgress
	}
	body, err = s.box.Open(seen.Response, "idempotency_keys", "response", i.row())
	if err != nil {
		return 0, nil, fmt.Errorf("read idempotency key: %w", err)
	}
	return seen.Status, body, nil
}

// FinishIdempotent keeps the answer, sealed, since it may hold a secret that is
// shown once. Status 0 forgets the key instead: the request failed and may be
// tried again.
func (s *Store) FinishIdempotent(ctx context.Context, i Idempotency, status int, body []byte) error {
	var err error
	if status == 0 {
		_, err = s.db.ExecContext(ctx, `delete from idempotency_keys where account_id = $1 and key = $2 and status = 0`, i.Account, i.Key)
	} else {
		_, err = s.db.ExecContext(ctx, `update idempotency_keys set status = $3, response = $4 where account_id = $1 and key = $2`,
			i.Account, i.Key, status, s.box.Seal(body, "idempotency_keys", "response", i.row()))
	}
	if err != nil {
		return fmt.Errorf("finish idempotency key: %w", err)
	}
	return nil
}

// TrimIdempotencyKeys removes keys that are no longer remembered.
func (s *Store) TrimIdempotencyKeys(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `delete from idempotency_keys where created_at < now() - $1 * interval '1 second'`, idempotencyKept.Seconds())
	if err != nil {
		return fmt.Errorf("trim idempotency keys: %w", err)
	}
	return nil
}

// --- helpers ---

// oneRow turns "no row changed" into an error.
func oneRow(res sql.Result, err, none error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(none, err)
	}
	return nil
}

// found turns the absence of a row into ErrNotFound, and says what was read.
func found(err error, what string, p id.Prefix, u id.ID) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s %s: %w", what, p.Format(u), ErrNotFound)
	}
	return fmt.Errorf("read %s %s: %w", what, p.Format(u), err)
}
