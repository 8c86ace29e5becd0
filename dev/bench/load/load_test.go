package load

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/mailtrap"
	"aftersend/esp/mandrill"
	"aftersend/event"
)

const nonce = "abc123"

var targets = []Target{
	{ESP: "mandrill", URL: "http://callbacks.example.com/callbacks/mandrill/token-1", Secret: "mandrill key", Weight: 1},
	{ESP: "mailtrap", URL: "http://callbacks.example.com/callbacks/mailtrap/token-2", Secret: "mailtrap secret", Weight: 1},
}

// readPosted is what a server sees of a request of ours.
func readPosted(t require.TestingT, r *http.Request) esp.Request {
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return esp.Request{Method: r.Method, URL: "http://" + r.Host + r.RequestURI, Header: r.Header, Body: body}
}

func TestRequestsAreWhatTheESPsSend(t *testing.T) {
	for _, perMessage := range []int{1, 2} {
		templates, err := newTemplates(targets, perMessage, nonce, time.Now())
		require.NoError(t, err)
		seen := map[event.Type]bool{}
		messages := map[string]bool{}
		numbers := map[string]bool{}
		const n = 20 * 4 * block
		for i := range int64(n) {
			wire := templates.request(i)
			if i%block > 40 { // two rounds of the stories; the rest is the same again
				continue
			}
			require.Greater(t, len(wire), 700)
			require.Less(t, len(wire), 1200)

			got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
			require.NoError(t, err)
			req := readPosted(t, got)
			target, adapter := targets[0], interface {
				esp.Adapter
				esp.Verifier
			}(mandrill.Adapter{})
			if got.URL.Path == "/callbacks/mailtrap/token-2" {
				target, adapter = targets[1], mailtrap.Adapter{}
			}
			secret := map[string]string{"key": target.Secret, "secret": target.Secret}
			require.NoError(t, adapter.Verify(t.Context(), req, esp.Verification{Secrets: secret}))
			result, err := adapter.Parse(req)
			require.NoError(t, err)
			require.Len(t, result.Events, 1)
			e := result.Events[0]
			require.NotEqual(t, event.Unknown, e.Type)
			seen[e.Type] = true
			messages[e.MessageID] = true
			require.Contains(t, e.Recipient, "@example.com")
			seq, _ := e.Metadata["seq"].(string)
			require.Equal(t, marker(nonce)+pad(i), seq)
			numbers[seq] = true
		}
		require.Len(t, numbers, n/block*41)
		require.Len(t, messages, n/block*41/perMessage)
		if perMessage == 2 {
			require.True(t, seen[event.Bounced] && seen[event.Deferred] && seen[event.Opened] && seen[event.Delivered], seen)
		}
	}
}

// pad is n as a sequence number is written.
func pad(n int64) string { return strconv.FormatInt(1e10+n, 10)[1:] }

// product stands in for aftersend: it hands what it accepts to the sink, some time later, several in one body.
type product struct {
	sink    string
	twice   bool              // deliver everything twice
	answer  func(n int64) int // status of the nth request
	lose    func(n int64) bool
	armed   atomic.Bool // the two above hold
	posted  atomic.Int64
	mu      sync.Mutex
	waiting bytes.Buffer
}

func (p *product) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n := p.posted.Add(1)
	status := http.StatusOK
	armed := p.armed.Load()
	if armed && p.answer != nil {
		status = p.answer(n)
	}
	if status == http.StatusOK && (!armed || p.lose == nil || !p.lose(n)) {
		p.mu.Lock()
		p.waiting.Write(body)
		p.waiting.WriteByte('\n')
		p.mu.Unlock()
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"status":"accepted"}`)
}

func (p *product) deliver(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		p.mu.Lock()
		body := bytes.Clone(p.waiting.Bytes())
		p.waiting.Reset()
		p.mu.Unlock()
		times := 1
		if p.twice {
			times = 2
		}
		for range times {
			if len(body) == 0 {
				break
			}
			resp, err := http.Post(p.sink, "application/json", bytes.NewReader(body))
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}
}

func runAgainst(t *testing.T, p *product, spec Spec) Result {
	sink, err := NewSink(nonce)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sink.Close() })
	p.sink = sink.URL()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.deliver(ctx) }()
	t.Cleanup(func() { stop(); <-done })

	spec.Addr = server.Listener.Addr().String()
	spec.Targets = targets
	spec.Deliveries = true
	var moments []Moment
	g := NewGenerator(nonce, sink)
	_, err = g.Run(ctx, Spec{Addr: spec.Addr, Targets: targets, Connections: 1, Seconds: 0.05, Deliveries: true, DrainSeconds: 10}, func(Moment) {})
	require.NoError(t, err, "a run before, whose numbers must not be mixed up with the next one's")
	p.posted.Store(0)
	p.armed.Store(true)
	result, err := g.Run(ctx, spec, func(m Moment) { moments = append(moments, m) })
	require.NoError(t, err)
	require.Equal(t, []Moment{Started, Sent, Drained}, moments)
	return result
}

func TestClosedLoop(t *testing.T) {
	p := &product{}
	r := runAgainst(t, p, Spec{PerMessage: 2, Connections: 8, Seconds: 0.3, DrainSeconds: 10})
	require.Positive(t, r.Offered)
	require.EqualValues(t, p.posted.Load(), r.Offered)
	require.Equal(t, r.Offered, r.Accepted)
	require.Equal(t, r.Accepted, r.Arrived)
	require.Zero(t, r.Missing+r.Repeats+r.Foreign+r.Unasked)
	require.Empty(t, r.Refused)
	require.Positive(t, r.Ack.P50)
	require.LessOrEqual(t, r.Ack.P50, r.Ack.P99)
	require.LessOrEqual(t, r.AckArrived.P50, r.SentArrived.P50)
}

func TestOpenLoopOffersItsRate(t *testing.T) {
	r := runAgainst(t, &product{}, Spec{PerMessage: 1, Connections: 8, Seconds: 0.5, Rate: 400, DrainSeconds: 10})
	require.Len(t, arrivals(400, 500*time.Millisecond), r.Offered)
	require.InDelta(t, 200, r.Offered, 50)
	require.Zero(t, r.Missing)
}

func TestWhatIsLostOrRepeatedShows(t *testing.T) {
	p := &product{
		twice: true,
		lose:  func(n int64) bool { return n == 3 || n == 4 },
		answer: func(n int64) int {
			if n == 7 {
				return http.StatusServiceUnavailable
			}
			return http.StatusOK
		},
	}
	r := runAgainst(t, p, Spec{PerMessage: 1, Connections: 2, Seconds: 0.3, DrainSeconds: 0.5})
	require.Equal(t, map[int]int{503: 1}, r.Refused)
	require.Equal(t, r.Offered, r.Accepted+1)
	require.Equal(t, 2, r.Missing)
	require.Equal(t, r.Accepted, r.Arrived+2)
	require.Positive(t, r.Repeats)
}

func TestServerThatHangsUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	sink, err := NewSink(nonce)
	require.NoError(t, err)
	defer sink.Close()
	r, err := NewGenerator(nonce, sink).Run(t.Context(), Spec{Addr: l.Addr().String(), Targets: targets, Connections: 2, Seconds: 0.1}, func(Moment) {})
	require.NoError(t, err)
	require.Positive(t, r.Offered)
	require.Zero(t, r.Accepted)
	require.Equal(t, r.Offered, r.Refused[0])
}

func TestAccounts(t *testing.T) {
	child := exec.Command("sh", "-c", "read line; sh -c :; read line")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	defer func() { _ = in.Close(); _ = child.Wait() }()

	accounts := Accounts{"test": os.Getpid(), "child": child.Process.Pid}
	before, err := accounts.Read()
	require.NoError(t, err)
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); { // work
	}
	after, err := accounts.Read()
	require.NoError(t, err)
	used := after.Since(before)
	require.Positive(t, used["test"])
	require.GreaterOrEqual(t, used[Machine], used["test"]/2)
	require.Less(t, used["child"], used["test"], "a child with an account of its own is not counted twice")

	memory, err := accounts.Memory()
	require.NoError(t, err)
	require.Greater(t, memory["test"], int64(1<<20))

	_, err = Accounts{"nobody": 1 << 30}.Read()
	require.ErrorContains(t, err, "nobody")
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("12 (a) name) R 7 12 12 0 -1 4194304 100 0 0 0 150 50 20 30 20 0 1 0 1 1 1"))
	require.NoError(t, err)
	require.Equal(t, process{parent: 7, used: 2500 * time.Millisecond}, p)
	_, err = parseStat([]byte("12 (short) R 7"))
	require.Error(t, err)
}
