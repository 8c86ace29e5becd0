package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/manage"
)

func (c *cli) sendCommand() *cobra.Command {
	var address, token, to, messageID string
	var secrets map[string]string
	var asCurl bool
	cmd := &cobra.Command{
		Use: "send ESP EVENT", Short: "Post a callback as the ESP would, about an event such as bounced",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			adapter, ok := all.ByName(args[0])
			if !ok {
				return fmt.Errorf("there is no ESP %q; known are %s", args[0], strings.Join(espNames(), ", "))
			}
			name := adapter.Describe().Name
			sampler, ok := adapter.(esp.Sampler)
			if !ok {
				return fmt.Errorf("there are no sample callbacks of %s", name)
			}
			t := event.Type(args[1])
			if !t.Known() {
				return fmt.Errorf("there is no event type %q; known are %v", args[1], event.Types)
			}
			if address == "" {
				cfg, err := c.load()
				if err != nil {
					return err
				}
				address = cfg.API.BaseURL() + "/callbacks/" + name + "/" + token
			}
			now := time.Now().UTC().Truncate(time.Second)
			ev := manage.Sample(t, now)
			ev.Recipient, ev.MessageID = to, messageID
			if messageID == "" {
				ev.MessageID = fmt.Sprintf("sample-%d", now.UnixNano())
			}
			ev.RFCMessageID = "<" + ev.MessageID + "@example.org>"
			req, err := sampler.Sample(ev, address, secrets, now)
			if err != nil {
				return err
			}
			if asCurl {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), curl(req, address))
				return err
			}
			return post(cmd, req, address)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "url", "", "the source's URL (default: this configuration's, with --token)")
	f.StringVar(&token, "token", manage.DevToken, "the source's token")
	f.StringVar(&to, "to", "ann@example.com", "recipient of the message it is about")
	f.StringVar(&messageID, "message-id", "", "the ESP's id of the message, to tell a story of several events (default: a new one)")
	f.StringToStringVar(&secrets, "secret", nil, "what the source verifies with, as in key=…; may be repeated")
	f.BoolVar(&asCurl, "print-curl", false, "print a curl command and post nothing")
	return cmd
}

// target is where a sample goes: the source's URL with the sample's own query.
func target(r esp.Request, address string) string {
	if r.RawQuery == "" || strings.Contains(address, "?") {
		return address
	}
	return address + "?" + r.RawQuery
}

func post(cmd *cobra.Command, r esp.Request, address string) error {
	req, err := http.NewRequestWithContext(cmd.Context(), r.Method, target(r, address), bytes.NewReader(r.Body))
	if err != nil {
		return err
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	client := http.Client{Timeout: 30 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", res.Status, bytes.TrimSpace(answer)); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New("the callback was not accepted")
	}
	return nil
}

// curl spells a request as a command for a POSIX shell.
func curl(r esp.Request, address string) string {
	var b strings.Builder
	b.WriteString("curl -X " + r.Method)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			if name != "Host" && name != "Content-Length" {
				b.WriteString(" \\\n  -H " + quote(name+": "+value))
			}
		}
	}
	if len(r.Body) > 0 {
		b.WriteString(" \\\n  --data-binary " + quote(string(r.Body)))
	}
	b.WriteString(" \\\n  " + quote(target(r, address)))
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
