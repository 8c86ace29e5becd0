package config

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// field is one setting: a leaf of Config.
type field struct {
	key    string // "api.addr"
	value  reflect.Value
	secret string // "": no secret; "all"; "url": the password in it
}

// fields lists the settings of c in the order of declaration.
func fields(c *Config) []field {
	var out []field
	root := reflect.ValueOf(c).Elem()
	for i := range root.NumField() {
		section := root.Type().Field(i)
		if !section.IsExported() {
			continue
		}
		for j := range section.Type.NumField() {
			f := section.Type.Field(j)
			out = append(out, field{
				key:    section.Tag.Get("koanf") + "." + f.Tag.Get("koanf"),
				value:  root.Field(i).Field(j),
				secret: f.Tag.Get("secret"),
			})
		}
	}
	return out
}

// wants names the form a setting has, for error messages.
func (f field) wants() string {
	switch f.value.Interface().(type) {
	case time.Duration:
		return `a duration with its unit, like "30s" or "5m"`
	case []time.Duration:
		return `a list of durations with their units, like "15m, 4h"`
	case []netip.Prefix:
		return `a list of address ranges, like "10.0.0.0/8"`
	case []uint16:
		return "a list of ports"
	case bool:
		return "true or false"
	case int:
		return "a number"
	case int64:
		return `a number of bytes, like 1048576 or "10MiB"`
	}
	return "text"
}

// Print writes the effective configuration as YAML that Load reads back, with
// the origin of each value that is not a default, and with secrets masked.
func (c Config) Print(w io.Writer) error {
	section := ""
	var b strings.Builder
	for _, f := range fields(&c) {
		before, name, _ := strings.Cut(f.key, ".")
		if before != section {
			section = before
			fmt.Fprintf(&b, "%s:\n", section)
		}
		line := fmt.Sprintf("  %s: %s", name, f.text())
		if o := c.origins[f.key]; o != "" {
			line = fmt.Sprintf("%-50s # %s", line, o)
		}
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (f field) text() string {
	switch v := f.value.Interface().(type) {
	case string:
		if v != "" && f.secret == "all" {
			v = "[set]"
		}
		if f.secret == "url" {
			v = maskURL(v)
		}
		return fmt.Sprintf("%q", v)
	case time.Duration:
		return v.String()
	case []netip.Prefix, []uint16, []time.Duration:
		return strings.ReplaceAll(fmt.Sprint(v), " ", ", ")
	default:
		return fmt.Sprint(v)
	}
}

// maskURL hides the password of a URL, and all of what cannot be read as one.
func maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "[set]"
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
