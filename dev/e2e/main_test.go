// Package e2e tests the whole product from outside, as ESPs, subscribers and
// operators meet it: on a real Postgres and a real Temporal server, started
// once for all tests by package stack. What the design promises (DESIGN: what
// we promise, and show in tests) is shown here by killing processes and
// cutting services off. No test says how fast anything has to be.
//
// With -record the tests also write the histories of workflows they watched to
// workflows/testdata/histories, where replay tests hold new code to them.
package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"aftersend/dev/internal/stack"
)

var (
	record    = flag.Bool("record", false, "write histories for the replay tests to workflows/testdata/histories")
	receivers *receiver
	mails     *mailbox
)

func TestMain(m *testing.M) {
	stack.Child()
	flag.Parse()
	// These tests wait more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("16")
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	receivers = newReceiver()
	defer receivers.server.Close()
	var err error
	if mails, err = newMailbox(); err != nil {
		fmt.Fprintln(os.Stderr, "start the mail server of the tests:", err)
		return 1
	}
	code := m.Run()
	if shared != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := shared.stack.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "stop the stack:", err)
			code = 1
		}
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

// product is the running product with its Postgres and Temporal.
type product struct {
	stack    *stack.Stack
	dir      string
	url      string
	db       *sql.DB
	temporal client.Client
	logs     map[stack.Role]*logBuffer
}

var (
	shared     *product
	sharedOnce sync.Once
	sharedErr  error
)

// calm is the product of all tests, started by the first that asks. Those that
// disturb it are not parallel, so that they are over before the others begin.
func calm(t *testing.T) *product {
	t.Helper()
	sharedOnce.Do(func() {
		var dir string
		if dir, sharedErr = os.MkdirTemp("", "aftersend-e2e-"); sharedErr == nil {
			shared, sharedErr = startProduct(stack.Options{DataDir: dir})
		}
	})
	require.NoError(t, sharedErr, "start the product")
	t.Cleanup(func() { shared.logFailure(t) })
	return shared
}

// logFailure shows the end of the product's log when a test has failed.
func (p *product) logFailure(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, role := range []stack.Role{stack.Serve, stack.API, stack.Worker} {
		if text := p.logs[role].tail(); text != "" {
			t.Logf("the last words of %s:\n%s", role, text)
		}
	}
}

// startProduct starts a stack of its own.
func startProduct(o stack.Options) (*product, error) {
	p := &product{dir: o.DataDir, logs: map[stack.Role]*logBuffer{}}
	for _, role := range []stack.Role{stack.Postgres, stack.Temporal, stack.Serve, stack.API, stack.Worker} {
		p.logs[role] = &logBuffer{}
	}
	o.NoUI = true
	o.Verbose = true // so that there is something to search for what must not be there
	o.Log = func(r stack.Role) io.Writer { return p.logs[r] }
	o.Env = map[stack.Role][]string{}
	for _, role := range []stack.Role{stack.Serve, stack.API, stack.Worker} {
		o.Env[role] = []string{"AFTERSEND_MAIL__SMTP_ADDR=" + mails.addr, "AFTERSEND_MAIL__TLS=none"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if p.stack, err = stack.Start(ctx, o); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.logs[stack.Serve].tail())
	}
	p.url = p.stack.API
	if p.db, err = sql.Open("postgres", p.stack.DatabaseURL+"&binary_parameters=yes"); err != nil {
		return nil, err
	}
	p.db.SetMaxOpenConns(8)
	p.temporal, err = client.NewLazyClient(client.Options{
		HostPort:  p.stack.Addresses.Temporal,
		Namespace: stack.Namespace,
		Logger:    sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	return p, err
}

// logBuffer keeps what a child writes.
type logBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

func (b *logBuffer) tail() string {
	text := b.String()
	if over := len(text) - 8000; over > 0 {
		text = "…" + text[over:]
	}
	return text
}

// describe is what Temporal tells an operator about a workflow.
func (p *product) describe(workflowID string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p.temporal.DescribeWorkflowExecution(ctx, workflowID, "")
}

// history is all that Temporal keeps of the newest run of a workflow.
func (p *product) history(t *testing.T, workflowID string) *historypb.History {
	t.Helper()
	h, err := p.fetchHistory(workflowID, "")
	require.NoError(t, err, workflowID)
	return h
}

func (p *product) fetchHistory(workflowID, runID string) (*historypb.History, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h := &historypb.History{}
	for it := p.temporal.GetWorkflowHistory(ctx, workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		if err != nil {
			return nil, err
		}
		h.Events = append(h.Events, e)
	}
	return h, nil
}

// record writes a workflow's history for the replay tests, when asked to. The
// name says the story.
func (p *product) record(t *testing.T, workflowID, name string) {
	t.Helper()
	if !*record {
		return
	}
	h := p.history(t, workflowID)
	text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(h)
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	text = []byte(strings.ReplaceAll(string(text), host, "worker"))
	dir := filepath.Join("..", "..", "workflows", "testdata", "histories")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644))
}
