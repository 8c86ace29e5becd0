package config

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

const prefix = "AFTERSEND_"

// notSettings are variables with our prefix that are not for this package:
// where the file is, where Postgres' binaries are, which step a test kills.
var notSettings = []string{"AFTERSEND_CONFIG", "AFTERSEND_PG_BIN", "AFTERSEND_CRASH"}

// kubernetes matches what Kubernetes puts into the environment of every pod
// for a Service that is called aftersend, or aftersend-something.
var kubernetes = regexp.MustCompile(`^AFTERSEND_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$`)

// borrowed are other people's variables for our settings; ours win.
var borrowed = map[string]string{
	"DATABASE_URL":       "database.url",
	"TEMPORAL_ADDRESS":   "temporal.address",
	"TEMPORAL_NAMESPACE": "temporal.namespace",
}

// Load reads the configuration: defaults, then the YAML file (path, or else
// AFTERSEND_CONFIG; "" = none), then environ as os.Environ gives it. A secret
// can also be named by a file: AFTERSEND_SEAL__KEYS_FILE. All that is wrong is
// reported at once; secrets are not in the error.
func Load(path string, environ []string) (Config, error) {
	c := Default()
	known := map[string]field{}
	for _, f := range fields(&c) {
		known[f.key] = f
	}
	env := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	if path == "" {
		path = env["AFTERSEND_CONFIG"]
	}

	origins := map[string]string{}
	k := koanf.New(".")
	var errs []error
	if path != "" {
		f := koanf.New(".")
		if err := f.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("config: read %s: %w", path, err)
		}
		for _, key := range f.Keys() {
			if _, ok := known[key]; !ok {
				errs = append(errs, unknown(key, known, "file "+path))
				continue
			}
			origins[key] = "file " + path
		}
		if err := k.Merge(f); err != nil {
			return Config{}, fmt.Errorf("config: read %s: %w", path, err)
		}
	}
	fromEnv, envErrs := environment(env, known, origins)
	errs = append(errs, envErrs...)
	if len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	if err := k.Load(confmap.Provider(fromEnv, "."), nil); err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	for _, key := range k.Keys() { // one by one, so that an error can say where the value is from
		if err := decode(known[key], k.Get(key)); err != nil {
			errs = append(errs, fmt.Errorf("config: %s (%s): %w", key, origins[key], err))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, c.validate()...)
	}
	if len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	c.API.PublicURL = strings.TrimRight(c.API.PublicURL, "/")
	c.origins = origins
	return c, nil
}

// environment turns variables into key -> text and notes where each is from.
func environment(env map[string]string, known map[string]field, origins map[string]string) (map[string]any, []error) {
	values := map[string]any{}
	var errs []error
	set := func(name, key, value string) {
		values[key], origins[key] = value, name
	}
	fromFile := func(name, key, path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("config: %s: %w", name, err))
			return
		}
		set(name, key, strings.TrimSpace(string(text)))
	}
	for name, key := range borrowed {
		if env[name] != "" {
			set(name, key, env[name])
		}
	}
	names := make([]string, 0, len(env))
	for name := range env {
		if strings.HasPrefix(name, prefix) && !slices.Contains(notSettings, name) && !kubernetes.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names) // NAME before NAME_FILE
	for _, name := range names {
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "__", "."))
		if _, ok := known[key]; ok {
			set(name, key, env[name])
			continue
		}
		key = strings.TrimSuffix(key, "_file")
		switch f, ok := known[key]; {
		case !ok || f.secret == "" || !strings.HasSuffix(name, "_FILE"):
			errs = append(errs, unknown(name, known, "environment"))
		case env[strings.TrimSuffix(name, "_FILE")] != "":
			errs = append(errs, fmt.Errorf("config: %s and %s are both set; keep one", strings.TrimSuffix(name, "_FILE"), name))
		default:
			fromFile(name, key, env[name])
		}
	}
	return values, errs
}

// decode writes one value, as YAML or the environment gave it, into the field.
func decode(f field, value any) error {
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           f.value.Addr().Interface(),
		WeaklyTypedInput: true,
		ZeroFields:       true, // a list replaces the default list
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			list, duration, size,
			mapstructure.TextUnmarshallerHookFunc(),
		),
	})
	if err != nil {
		return err
	}
	if err := d.Decode(value); err != nil {
		if f.secret != "" {
			return errors.New("not readable")
		}
		return fmt.Errorf("%v is not %s", value, f.wants())
	}
	return nil
}

// list splits the text of an environment variable at its commas.
func list(from, to reflect.Type, data any) (any, error) {
	if from.Kind() != reflect.String || to.Kind() != reflect.Slice {
		return data, nil
	}
	parts := []string{}
	for part := range strings.SplitSeq(data.(string), ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// duration reads "30s"; a bare number would leave its unit to guessing.
func duration(from, to reflect.Type, data any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return data, nil
	}
	text, ok := data.(string)
	if !ok {
		return nil, errors.New("no unit")
	}
	return time.ParseDuration(text)
}

// size reads "10MiB" and "500kB" besides plain numbers of bytes.
func size(from, to reflect.Type, data any) (any, error) {
	text, ok := data.(string)
	if !ok || to.Kind() != reflect.Int64 || to == reflect.TypeFor[time.Duration]() {
		return data, nil
	}
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}} {
		if number, ok := strings.CutSuffix(text, unit.name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
			return n * unit.bytes, err
		}
	}
	return data, nil
}

// validate finds values that can be read and cannot work.
func (c *Config) validate() []error {
	var errs []error
	check := func(ok bool, key, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("config: %s (%s): want %s", key, c.origin(key), want))
		}
	}
	hostPort := func(key, addr string, optional bool) {
		_, _, err := net.SplitHostPort(addr)
		check(err == nil || optional && addr == "", key, "host:port")
	}
	webURL := func(key, text string) {
		u, err := url.Parse(text)
		check(text == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.User == nil,
			key, "an http or https URL without query")
	}
	within := func(key string, d, low, high time.Duration) {
		check(low <= d && d <= high, key, fmt.Sprintf("%v to %v", low, high))
	}
	hostPort("api.addr", c.API.Addr, false)
	hostPort("api.admin_addr", c.API.AdminAddr, true)
	webURL("api.public_url", c.API.PublicURL)
	check(c.API.MaxBodyBytes > 0, "api.max_body_bytes", "more than 0")
	if c.Database.URL != "" {
		u, err := url.Parse(c.Database.URL)
		check(err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql"), "database.url", "postgres://user:password@host/name")
	}
	check(c.Database.MaxConns >= 4, "database.max_conns", "4 or more")
	hostPort("temporal.address", c.Temporal.Address, false)
	check(c.Temporal.Namespace != "", "temporal.namespace", "a name")
	webURL("temporal.ui_url", c.Temporal.UIURL)
	check(c.Intake.MaxRows >= 1 && c.Intake.MaxRows <= 5000, "intake.max_rows", "1 to 5000")
	check(c.Intake.MaxBytes > 0, "intake.max_bytes", "more than 0")
	check(c.Intake.MaxInFlightBytes >= c.API.MaxBodyBytes, "intake.max_in_flight_bytes", "at least api.max_body_bytes")
	check(c.Intake.GroupMaxCallbacks >= 1 && c.Intake.GroupMaxCallbacks <= 10_000, "intake.group_max_callbacks", "1 to 10000")
	check(c.Intake.GroupMaxBytes > 0, "intake.group_max_bytes", "more than 0")
	check(c.Intake.OpenGroups >= 1, "intake.open_groups", "1 or more")
	within("delivery.timeout", c.Delivery.Timeout, time.Second, 30*time.Second)
	within("delivery.retry_interval", c.Delivery.RetryInterval, time.Second, time.Hour)
	check(c.Delivery.Retries >= 0 && c.Delivery.Retries <= 1000, "delivery.retries", "0 to 1000")
	check(c.Delivery.BatchMaxEvents >= 1 && c.Delivery.BatchMaxEvents <= 500, "delivery.batch_max_events", "1 to 500")
	within("delivery.batch_max_wait", c.Delivery.BatchMaxWait, 0, 30*time.Second)
	within("delivery.rotation_overlap", c.Delivery.RotationOverlap, 0, 90*24*time.Hour)
	reviews := c.Deferrals.Reviews
	check(len(reviews) > 0 && slices.IsSorted(reviews) && reviews[0] >= time.Second && reviews[len(reviews)-1] <= 30*24*time.Hour,
		"deferrals.reviews", "ascending, 1s to 720h")
	hostPort("mail.smtp_addr", c.Mail.SMTPAddr, true)
	check(slices.Contains([]string{"starttls", "tls", "none"}, c.Mail.TLS), "mail.tls", "starttls, tls or none")
	_, err := mail.ParseAddress(c.Mail.From)
	check(err == nil, "mail.from", "an e-mail address")
	check(0 <= c.Watch.DropBelow && c.Watch.DropBelow <= 1, "watch.drop_below", "0 to 1")
	check(0 <= c.Watch.FailureShare && c.Watch.FailureShare <= 1, "watch.failure_share", "0 to 1")
	check(c.Watch.FailureRise >= 1, "watch.failure_rise", "1 or more")
	check(c.Watch.DropEvents >= 1, "watch.drop_events", "1 or more")
	check(c.Watch.SilentEvents >= 1, "watch.silent_events", "1 or more")
	check(c.Watch.FailureEvents >= 1, "watch.failure_events", "1 or more")
	check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level", "debug, info, warn or error")
	check(slices.Contains([]string{"auto", "json", "text"}, c.Log.Format), "log.format", "auto, json or text")
	return errs
}

func (c *Config) origin(key string) string {
	if o := c.origins[key]; o != "" {
		return o
	}
	return "default"
}

// unknown is the error for a key or variable that is none, with the nearest
// one that is.
func unknown(name string, known map[string]field, where string) error {
	inEnv := where == "environment"
	best, bestDistance := "", 1+len(name)/3
	for key := range known {
		candidate := key
		if inEnv {
			candidate = prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
		}
		if d := distance(name, candidate); d < bestDistance || d == bestDistance && candidate < best {
			best, bestDistance = candidate, d
		}
	}
	if best == "" {
		return fmt.Errorf("config: unknown key %q (%s); `aftersend config print` lists those there are", name, where)
	}
	return fmt.Errorf("config: unknown key %q (did you mean %q?) (%s)", name, best, where)
}

// distance is how many characters must be changed, added or removed to make
// one string the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
