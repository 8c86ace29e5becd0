package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"aftersend/webhook"
)

func (c *cli) receiveCommand() *cobra.Command {
	var addr, secret string
	var status int
	var delay time.Duration
	var body bool
	cmd := &cobra.Command{
		Use: "receive", Short: "A test endpoint: prints what webhooks post and whether the signature is good", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &receiver{out: cmd.OutOrStdout(), status: status, delay: delay, body: body}
			if err := r.verifyWith(secret); err != nil {
				return err
			}
			return r.run(cmd.Context(), addr, c.stderr)
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "addr", "127.0.0.1:9000", "host:port to listen on")
	f.StringVar(&secret, "secret", "", "the webhook's signing secret, whsec_…")
	f.IntVar(&status, "status", http.StatusOK, "answer with this status, as in 503")
	f.DurationVar(&delay, "delay", 0, "wait this long before answering")
	f.BoolVar(&body, "body", false, "print bodies too")
	return cmd
}

// receiver is an endpoint that tells what it gets, a line of JSON per request.
type receiver struct {
	verifier *standardwebhooks.Webhook // nil: signatures are not checked
	status   int
	delay    time.Duration
	body     bool

	mu  sync.Mutex
	out io.Writer
}

type received struct {
	At        time.Time       `json:"at"`
	WebhookID string          `json:"webhook_id,omitempty"`
	Signature string          `json:"signature"` // valid, invalid, unchecked
	Events    int             `json:"events,omitempty"`
	Bytes     int             `json:"bytes"`
	Answered  int             `json:"answered"`
	Body      json.RawMessage `json:"body,omitempty"`
}

// verifyWith checks signatures from now on, unless secret is "".
func (r *receiver) verifyWith(secret string) (err error) {
	if secret == "" {
		return nil
	}
	if r.verifier, err = standardwebhooks.NewWebhook(secret); err != nil {
		return webhook.ErrBadSecret // the cause may repeat it
	}
	return nil
}

func (r *receiver) run(ctx context.Context, addr string, stderr io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(grace) // Serve returns at once
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(io.LimitReader(req.Body, 64<<20))
	if err != nil {
		return
	}
	got := received{
		At: time.Now().UTC(), WebhookID: req.Header.Get(webhook.HeaderID), Signature: "unchecked",
		Bytes: len(text), Answered: r.status,
	}
	if r.verifier != nil {
		got.Signature = "valid"
		if err := r.verifier.Verify(text, req.Header); err != nil {
			got.Signature, got.Answered = "invalid", http.StatusUnauthorized
		}
	}
	var batch struct {
		Events []json.RawMessage `json:"events"`
	}
	if json.Unmarshal(text, &batch) == nil { // other dialects are shown without a count
		got.Events = len(batch.Events)
	}
	if r.body {
		got.Body = text
		if !json.Valid(text) {
			got.Body, _ = json.Marshal(string(text)) // a string: cannot fail
		}
	}
	select {
	case <-time.After(r.delay):
	case <-req.Context().Done():
		return
	}
	w.WriteHeader(got.Answered)
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = json.NewEncoder(r.out).Encode(got) // who reads the output is gone: go on answering
}
