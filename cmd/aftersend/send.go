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
	"aftersend/esp/capture"
	"aftersend/event"
	"aftersend/manage"
)

func (c *cli) sendCommand() *cobra.Command {
	var address, token, to, messageID, keysFile string
	var entered []string
	var asCurl bool
	cmd := &cobra.Command{
		Use: "send ESP EVENT", Short: "Post a callback as the ESP would, about an event such as bounced",
		Long: `Posts a callback as the ESP would, signed and with credentials where the
source's are given with --secret or --keys: the fields are those of the
source's verification. An ESP whose private key nobody else has signs with
sample_key (base64 of PKCS #8), whose public half the source then needs.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			adapter, ok := all.ByName(args[0])
			if !ok {
				return fmt.Errorf("there is no ESP %q; known are %s", args[0], strings.Join(espNames(), ", "))
			}
			name := adapter.Describe().Name
			secrets, err := sampleSecrets(adapter, keysFile, entered)
			if err != nil {
				return err
			}
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
			esp.Authenticate(&req, secrets)
			if asCurl {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), curl(req))
				return err
			}
			return post(cmd, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "url", "", "the source's URL (default: this configuration's, with --token)")
	f.StringVar(&token, "token", manage.DevToken, "the source's token")
	f.StringVar(&to, "to", "ann@example.com", "recipient of the message it is about")
	f.StringVar(&messageID, "message-id", "", "the ESP's id of the message, to tell a story of several events (default: a new one)")
	f.StringArrayVar(&entered, "secret", nil, "what the source verifies with, as in key=…; may be repeated")
	f.StringVar(&keysFile, "keys", "", "JSON file with the ESPs' secrets, as for parse; they do not show in the list of processes then")
	f.BoolVar(&asCurl, "print-curl", false, "print a curl command and post nothing")
	return cmd
}

// sampleSecrets are an ESP's secrets in a keys file, and those that were given
// beside it.
func sampleSecrets(adapter esp.Adapter, keysFile string, entered []string) (esp.Secrets, error) {
	secrets := esp.Secrets{}
	if keysFile != "" {
		keys, err := capture.ReadKeys(keysFile)
		if err != nil {
			return nil, err
		}
		if v, ok := keys.Verification(adapter); ok {
			secrets = v.Secrets
		}
	}
	about := adapter.Describe()
	known := map[string]bool{esp.SampleKey: true}
	for _, f := range slices.Concat(about.Fields, esp.Common) {
		known[f.Name] = true
	}
	for _, text := range entered {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !known[name] {
			return nil, fmt.Errorf("--secret wants a field and its value, as in key=…; %s has %s", about.Name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		secrets[name] = value
	}
	return secrets, nil
}

// post posts to the sample's own URL: an ESP that calls with GET has its query
// there.
func post(cmd *cobra.Command, r esp.Request) error {
	req, err := http.NewRequestWithContext(cmd.Context(), r.Method, r.URL, bytes.NewReader(r.Body))
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
func curl(r esp.Request) string {
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
	b.WriteString(" \\\n  " + quote(r.URL))
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
