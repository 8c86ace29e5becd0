// Package config holds the product's one typed configuration and how it is
// read: defaults, then a YAML file, then environment variables. A key nobody
// knows is an error that names the nearest one, since a misspelt setting that
// is silently ignored is found in an outage.
//
// It may import the standard library and koanf only; what the values mean is
// for the rooms that use them.
package config

import (
	"net"
	"net/netip"
	"time"
)

// Config is everything that can be set. In YAML the keys are those of the
// tags ("api.max_body_bytes"), in the environment AFTERSEND_API__MAX_BODY_BYTES.
type Config struct {
	API      API      `koanf:"api"`
	Database Database `koanf:"database"`
	Temporal Temporal `koanf:"temporal"`
	Seal     Seal     `koanf:"seal"`
	Intake   Intake   `koanf:"intake"`
	Delivery Delivery `koanf:"delivery"`

	Deferrals Deferrals `koanf:"deferrals"`

	Mail  Mail  `koanf:"mail"`
	Watch Watch `koanf:"watch"`
	Log   Log   `koanf:"log"`
	Dev   Dev   `koanf:"dev"`

	origins map[string]string // key -> where its value comes from; absent = default
}

// API is the HTTP listener that takes callbacks and serves /api/v1.
type API struct {
	Addr           string         `koanf:"addr"`            // host:port
	PublicURL      string         `koanf:"public_url"`      // as ESPs reach it, without a trailing slash; "" = http://<addr>
	TrustedProxies []netip.Prefix `koanf:"trusted_proxies"` // whose X-Forwarded-For is believed; none by default
	MaxBodyBytes   int64          `koanf:"max_body_bytes"`  // of a callback, inflated
	// ReadHeaderTimeout and ReadTimeout bound how slowly a request may come in.
	ReadHeaderTimeout time.Duration `koanf:"read_header_timeout"`
	ReadTimeout       time.Duration `koanf:"read_timeout"`
	IdleTimeout       time.Duration `koanf:"idle_timeout"` // of a kept-alive connection
	// DrainDelay is how long a stopping process reports "not ready" before it
	// stops accepting, so that a balancer has noticed.
	DrainDelay time.Duration `koanf:"drain_delay"`
	// AdminAddr is a listener of its own for /livez, /readyz and /metrics; ""
	// leaves them with the API. A lone worker has no other listener.
	AdminAddr string `koanf:"admin_addr"`
}

// Database is the Postgres that holds everything.
type Database struct {
	URL      string `koanf:"url" secret:"url"` // postgres://…; DATABASE_URL is accepted too
	MaxConns int    `koanf:"max_conns"`        // per process
	Migrate  bool   `koanf:"migrate"`          // apply missing migrations at start instead of refusing to start
}

// Temporal is where workflows run. Credentials (TEMPORAL_API_KEY,
// TEMPORAL_TLS_…) are Temporal's own variables, read by its own library.
type Temporal struct {
	Address   string `koanf:"address"`   // host:port; TEMPORAL_ADDRESS is accepted too
	Namespace string `koanf:"namespace"` // TEMPORAL_NAMESPACE is accepted too
	UIURL     string `koanf:"ui_url"`    // for links to its web UI; "" = none
	// WorkerStopTimeout is how long a stopping worker lets activities finish:
	// longer than an HTTP attempt, so that a deploy burns none.
	WorkerStopTimeout time.Duration `koanf:"worker_stop_timeout"`
}

// Seal holds the keys of the secrets kept in the database.
type Seal struct {
	Keys string `koanf:"keys" secret:"all"` // "<id>:<base64 of 32 bytes>", comma separated; the first seals
}

// Intake bounds the group commit and the starts of workflows.
type Intake struct {
	MaxRows           int   `koanf:"max_rows"`            // callbacks in one commit
	MaxBytes          int64 `koanf:"max_bytes"`           // bytes in one commit
	MaxInFlightBytes  int64 `koanf:"max_in_flight_bytes"` // received and not yet committed; above, ESPs are told to come back
	GroupMaxCallbacks int   `koanf:"group_max_callbacks"` // callbacks in one workflow
	GroupMaxBytes     int64 `koanf:"group_max_bytes"`     // bytes in one workflow
	OpenGroups        int   `koanf:"open_groups"`         // workflows at once, per process
}

// Delivery holds what new webhooks get when they do not say, and what the
// outgoing client allows.
type Delivery struct {
	Timeout         time.Duration  `koanf:"timeout"`          // of one attempt, everything included; at most 30 s
	RetryInterval   time.Duration  `koanf:"retry_interval"`   // between two attempts of a failed batch
	Retries         int            `koanf:"retries"`          // after the first attempt; then the webhook is paused
	BatchMaxEvents  int            `koanf:"batch_max_events"` // 1..500
	BatchMaxWait    time.Duration  `koanf:"batch_max_wait"`   // 0..30 s
	AllowedPrefixes []netip.Prefix `koanf:"allowed_prefixes"` // private ranges webhooks may point to all the same
	AllowedPorts    []uint16       `koanf:"allowed_ports"`    // ports webhooks may point to
	RotationOverlap time.Duration  `koanf:"rotation_overlap"` // how long the former signing secret still signs
}

// Mail is how notices are sent.
type Mail struct {
	SMTPAddr string `koanf:"smtp_addr"` // host:port; "" = notices are kept unsent
	Username string `koanf:"username"`
	Password string `koanf:"password" secret:"all"`
	TLS      string `koanf:"tls"`  // starttls, tls or none
	From     string `koanf:"from"` // address notices come from
	// Owner becomes the first account's owner when it has none. Owners get the
	// notices of webhooks that name nobody.
	Owner string `koanf:"owner"`
}

// Watch holds when owners are told, once per outage, that a source tells far
// less than usual or that far more fails at a recipient domain than usual. Each
// is compared with its own past. A share of 0, or a rise of very much, switches
// a check off.
type Watch struct {
	DropBelow     float64 `koanf:"drop_below"`     // of the usual volume of a source: less is a drop; 0..1
	DropEvents    int64   `koanf:"drop_events"`    // so many must be usual to speak of a drop
	SilentEvents  int64   `koanf:"silent_events"`  // so many must be usual to speak of silence
	FailureShare  float64 `koanf:"failure_share"`  // of messages to a domain: less failing is never told; 0..1
	FailureRise   float64 `koanf:"failure_rise"`   // times the usual share of failures
	FailureEvents int64   `koanf:"failure_events"` // so many messages must have met their fate
}

// Log is what is written to standard error.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // json, text, or auto: text on a terminal
}

// Dev holds what only a development machine should switch on.
type Dev struct {
	// Token makes the API token "dev" and one source with the token "dev" for
	// every ESP; they are good for loopback peers only.
	Token bool `koanf:"token"`
}

// Deferrals says how long messages wait for their final word.
type Deferrals struct {
	// Reviews is when messages that became deferred in the same minutes are
	// looked at; the last review ends the wait of those that are deferred still.
	Reviews []time.Duration `koanf:"reviews"`
}

// Default is the configuration of somebody who sets nothing.
func Default() Config {
	const MiB = 1 << 20
	return Config{
		API: API{
			Addr:              "127.0.0.1:8080",
			MaxBodyBytes:      10 * MiB,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       30 * time.Second,
			IdleTimeout:       2 * time.Minute,
		},
		Database: Database{MaxConns: 20},
		Temporal: Temporal{Address: "127.0.0.1:7233", Namespace: "aftersend", WorkerStopTimeout: 45 * time.Second},
		Intake: Intake{
			MaxRows:           500,
			MaxBytes:          8 * MiB,
			MaxInFlightBytes:  256 * MiB,
			GroupMaxCallbacks: 2000,
			GroupMaxBytes:     8 * MiB,
			OpenGroups:        4,
		},
		Delivery: Delivery{
			Timeout:         30 * time.Second,
			RetryInterval:   5 * time.Minute,
			Retries:         40,
			BatchMaxEvents:  500,
			AllowedPorts:    []uint16{80, 443},
			RotationOverlap: 24 * time.Hour,
		},
		Deferrals: Deferrals{Reviews: []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour, 120 * time.Hour}},

		Mail:  Mail{TLS: "starttls", From: "aftersend@localhost"},
		Watch: Watch{DropBelow: 0.2, DropEvents: 100, SilentEvents: 20, FailureShare: 0.2, FailureRise: 3, FailureEvents: 50},
		Log:   Log{Level: "info", Format: "auto"},
	}
}

// BaseURL is how ESPs reach us: PublicURL, or http at the listener's address.
// It has no trailing slash.
func (a API) BaseURL() string {
	if a.PublicURL != "" {
		return a.PublicURL
	}
	host, port, err := net.SplitHostPort(a.Addr)
	if ip, ipErr := netip.ParseAddr(host); err == nil && (host == "" || ipErr == nil && ip.IsUnspecified()) {
		return "http://" + net.JoinHostPort("localhost", port)
	}
	return "http://" + a.Addr
}
