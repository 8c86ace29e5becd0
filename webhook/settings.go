package webhook

import (
	"time"

	"aftersend/event"
)

// Settings is what a user chose for a webhook, as in the API's JSON. Secrets
// (credentials, tokens, the query of the URL) are in Secrets.
type Settings struct {
	Events   []event.Type `json:"events,omitempty"` // none = all
	Filters  Filters      `json:"filters,omitzero"`
	Channel  Channel      `json:"channel"`
	URL      string       `json:"url,omitempty"` // without userinfo and query; Secrets.URL is what is called
	Dialect  Dialect      `json:"dialect"`
	Format   Format       `json:"format"`
	AuthType AuthType     `json:"auth_type"`
	Success  Success      `json:"success"`
	Timeout  int          `json:"timeout_seconds"` // 1..30, for everything including the response body
	Retry    Retry        `json:"retry"`
	Batch    Batch        `json:"batch"`
	Notify   []string     `json:"notify,omitempty"` // addresses that get notices
}

// Secrets is the part of a webhook's settings that is sealed in the database.
type Secrets struct {
	URL      string   `json:"url"`
	Auth     Auth     `json:"auth"`
	Pushover Pushover `json:"pushover,omitzero"`
}

// Filters narrow what a webhook gets: several values of one filter are
// alternatives, several filters must all match. An empty filter matches all.
type Filters struct {
	Source        []string `json:"source,omitempty"` // src_…
	ESP           []string `json:"esp,omitempty"`
	Stream        []string `json:"stream,omitempty"`
	SendingDomain []string `json:"sending_domain,omitempty"`
	SendingNode   []string `json:"sending_node,omitempty"`
	Bridge        []string `json:"bridge,omitempty"`
	DedicatedIP   []string `json:"dedicated_ip,omitempty"`
}

// Channel is how a webhook reaches its owner.
type Channel string

// The channels.
const (
	ChannelWeb      Channel = "web"
	ChannelPushover Channel = "pushover"
)

// Dialect is whose payload a webhook speaks, so that a consumer written for a
// known provider works unchanged.
type Dialect string

// The dialects.
const (
	DialectNative    Dialect = "native"
	DialectMailtrap  Dialect = "mailtrap"
	DialectMumara    Dialect = "mumara"
	DialectEverlytic Dialect = "everlytic"
	DialectSMTPeter  Dialect = "smtpeter"
)

// Format is how a body is written.
type Format string

// The formats; form is what the smtpeter dialect speaks.
const (
	FormatJSON  Format = "json"
	FormatJSONL Format = "jsonl"
	FormatForm  Format = "form"
)

// Success is which answers count as delivered.
type Success string

// The success rules. Mailtrap's documentation accepts 200 only.
const (
	Success2xx Success = "2xx"
	Success200 Success = "200"
)

// AuthType is how we authenticate to an endpoint, besides the signature.
type AuthType string

// The ways to authenticate.
const (
	AuthNone    AuthType = "none"
	AuthBasic   AuthType = "basic"
	AuthQuery   AuthType = "query"
	AuthBearer  AuthType = "bearer"
	AuthHeaders AuthType = "headers"
)

// Auth holds the credentials for one AuthType.
type Auth struct {
	Type     AuthType          `json:"type"`
	Username string            `json:"username,omitempty"`
	Password string            `json:"password,omitempty"`
	Name     string            `json:"name,omitempty"`  // query parameter
	Token    string            `json:"token,omitempty"` // query or bearer
	Headers  map[string]string `json:"headers,omitempty"`
}

// Retry is how often and how long a failed batch is tried again.
type Retry struct {
	IntervalSeconds int `json:"interval_seconds"`
	Attempts        int `json:"attempts"` // retries after the first attempt
}

// Interval between two retries.
func (r Retry) Interval() time.Duration { return time.Duration(r.IntervalSeconds) * time.Second }

// Batch is how events are gathered.
type Batch struct {
	MaxEvents      int `json:"max_events"`       // 1..500
	MaxWaitSeconds int `json:"max_wait_seconds"` // 0..30; 0 = at once
}

// MaxWait is how long events are gathered before they go.
func (b Batch) MaxWait() time.Duration { return time.Duration(b.MaxWaitSeconds) * time.Second }

// Pushover is where pushes go and how they sound.
type Pushover struct {
	UserKey  string `json:"user_key"`
	APIToken string `json:"api_token"`
	Sound    string `json:"sound"`
}
