package bounce_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/bounce"
	"aftersend/bounce/score"
)

var update = flag.Bool("update", false, "write what is read into the golden files")

// golden is a file of testdata: where the mail's form is from, and what is
// read. The mails are our own, written after formats of mail servers.
type golden struct {
	Source string `json:"source"`
	score.Label
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.eml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".eml"), func(t *testing.T) {
			mail, err := os.ReadFile(file)
			require.NoError(t, err)
			name := strings.TrimSuffix(file, ".eml") + ".json"
			raw, err := os.ReadFile(name)
			require.NoError(t, err)
			var want golden
			require.NoError(t, json.Unmarshal(raw, &want))
			require.NotEmpty(t, want.Source, "every mail says where its form is from")
			require.NotEmpty(t, want.Family)

			got := golden{Source: want.Source, Label: score.Of(bounce.Read(mail))}
			got.Family = want.Family
			var b bytes.Buffer
			encoder := json.NewEncoder(&b)
			encoder.SetEscapeHTML(false)
			encoder.SetIndent("", "  ")
			require.NoError(t, encoder.Encode(got))
			if *update {
				require.NoError(t, os.WriteFile(name, b.Bytes(), 0o644))
				return
			}
			require.Equal(t, string(raw), b.String())
		})
	}
}

// TestLineEnds: the same mail with other line ends says the same.
func TestLineEnds(t *testing.T) {
	for _, m := range testMails(t) {
		unix := bytes.ReplaceAll(m.mail, []byte("\r\n"), []byte("\n"))
		want := bounce.Read(unix)
		require.Equal(t, want, bounce.Read(bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n"))), m.name)
		require.Equal(t, want, bounce.Read(append([]byte("From MAILER-DAEMON Tue Mar  3 10:05:00 2026\n"), unix...)), m.name)
	}
}

// TestWhatHelpsMatching checks what the golden form does not show.
func TestWhatHelpsMatching(t *testing.T) {
	mail, err := os.ReadFile("testdata/arf-abuse.eml")
	require.NoError(t, err)
	r := bounce.Read(mail)
	require.Equal(t, "env-81", r.EnvelopeID)
	require.Equal(t, "bounces+81-ann=example.net@send.example.com", r.ReturnPath)
	require.Equal(t, []string{"bounces@send.example.com"}, r.To)
	require.Equal(t, "Your order", r.OriginalField("SUBJECT"))
	require.Empty(t, r.OriginalField("Received"))
}

// TestDamage: mails with bytes changed, cut out and repeated at random end in
// a report that keeps its promises.
func TestDamage(t *testing.T) {
	mails := append(testMails(t), readCorpus(t, corpus)...)
	random := rand.New(rand.NewPCG(20, 26))
	for _, m := range mails {
		for range 8 {
			check(t, damaged(m.mail, random))
		}
	}
}

func damaged(mail []byte, random *rand.Rand) []byte {
	b := bytes.Clone(mail)
	for range 1 + random.IntN(30) {
		if len(b) < 2 {
			return b
		}
		i := random.IntN(len(b) - 1)
		j := min(len(b), i+1+random.IntN(200))
		switch random.IntN(5) {
		case 0:
			b[i] = byte(random.IntN(256))
		case 1:
			b[i] ^= 1 << random.IntN(8)
		case 2:
			b = append(b[:i], b[j:]...)
		case 3:
			b = append(b[:j:j], b[i:]...)
		case 4:
			b[i] = "\r\n\x00<>@\"=;: -"[random.IntN(12)]
		}
	}
	return b
}

// check holds for any input.
func check(t *testing.T, mail []byte) {
	t.Helper()
	r := bounce.Read(mail)
	require.NotContains(t, r.Problems, "the mail could not be read", "Read recovered from a panic")
	switch r.Kind {
	case bounce.Bounce, bounce.Delayed, bounce.Delivered:
		require.NotEmpty(t, r.Format)
	case bounce.Complaint:
	case bounce.AutoReply, bounce.NotABounce:
		require.Empty(t, r.Recipients)
	default:
		t.Fatalf("unknown kind %q", r.Kind)
	}
	require.LessOrEqual(t, len(r.Recipients), 500)
	require.LessOrEqual(t, len(r.Problems), 20)
	for _, rcpt := range r.Recipients {
		require.LessOrEqual(t, len(rcpt.Address), 320)
		require.True(t, rcpt.SMTPCode == 0 || rcpt.SMTPCode >= 200 && rcpt.SMTPCode < 600)
		require.True(t, rcpt.EnhancedStatus == "" || strings.Count(rcpt.EnhancedStatus, ".") == 2, rcpt.EnhancedStatus)
	}
}

// TestHostile reads mails made to be slow or large to read. It has no clock:
// quadratic work on them would not end within the test's time.
func TestHostile(t *testing.T) {
	head := "Return-Path: <>\nFrom: MAILER-DAEMON@example.net\nSubject: Undelivered Mail Returned to Sender\nMIME-Version: 1.0\n"
	nested := head
	for i := range 40 {
		nested += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	messages := head
	for range 3000 {
		messages += "Content-Type: message/rfc822\n\n"
	}
	hostile := map[string]string{
		"nested multiparts":   nested + "text",
		"nested messages":     messages,
		"many parts":          head + "Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\nContent-Type: text/plain\n\na@b.example: 550 5.1.1 no\n", 20000),
		"boundary of nothing": head + "Content-Type: multipart/mixed; boundary=\"\"\n\n" + strings.Repeat("--\n", 300000),
		"many fields":         strings.Repeat("X-A: b\n", 200000) + "\n",
		"one folded field":    "X-A: b\n" + strings.Repeat(" b\n", 500000) + "\n",
		"folded parameters":   "Content-Type: a;\n" + strings.Repeat("b;\n", 400000) + "\n",
		"a long line":         head + "\n" + strings.Repeat("a@b.example ", 150000),
		"at signs":            head + "\n" + strings.Repeat("@", 1<<20),
		"quotes":              head + "\n" + strings.Repeat("\"@\"", 400000),
		"colons":              strings.Repeat(":", 1<<20),
		"brackets":            head + "Content-Type: text/html\n\n" + strings.Repeat("<a ", 400000),
		"comments":            head + "Content-Type: text/html\n\n" + strings.Repeat("<!--", 300000),
		"styles":              head + "Content-Type: text/html\n\n" + strings.Repeat("<style>", 200000),
		"encoded words":       "Subject: " + strings.Repeat("=?utf-8?q?=41?= ", 60000) + "\n\n",
		"recipients":          head + "\n" + strings.Repeat("<a@b.example>:\n", 100000),
		"more recipients":     head + "\n" + manyLines("<a%d@b.example>:\n\n", 30000),
		"status blocks":       head + "Content-Type: message/delivery-status\n\n" + manyLines("Final-Recipient: rfc822; a%d@b.example\n\n", 30000),
		"separators":          head + "\n" + strings.Repeat("Original message follows\n", 60000),
		"replies":             head + "\n" + strings.Repeat("550 ", 300000),
		"statuses":            head + "\n" + strings.Repeat("5.1.1 ", 300000),
		"answers":             head + "\n" + strings.Repeat("<<< 5\n", 300000),
		"introductions":       head + "\n" + strings.Repeat("the following recipients:\n\n", 60000),
		"json":                head + "\n" + `{"notificationType":` + strings.Repeat("[", 300000),
		"base64":              head + "Content-Transfer-Encoding: base64\n\n" + strings.Repeat("QUFB\n", 300000),
		"escapes":             head + "Content-Transfer-Encoding: quoted-printable\n\n" + strings.Repeat("=", 1<<20),
		"character sets":      head + "\n" + strings.Repeat("\x1b$B", 200000),
		"large":               head + "\n" + strings.Repeat("x\n", bounce.MaxSize),
		"wrapped":             strings.Repeat(head+"Content-Type: message/rfc822\n\n", 2000),
		"empty":               "",
		"zeros":               strings.Repeat("\x00", 1<<20),
		"carriage returns":    strings.Repeat("\r", 1<<20),
	}
	for name, mail := range hostile {
		t.Run(name, func(t *testing.T) { check(t, []byte(mail)) })
	}
}

func manyLines(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func testMails(t testing.TB) []labelled {
	t.Helper()
	files, err := filepath.Glob("testdata/*.eml")
	require.NoError(t, err)
	var mails []labelled
	for _, file := range files {
		mail, err := os.ReadFile(file)
		require.NoError(t, err)
		mails = append(mails, labelled{name: filepath.Base(file), mail: mail})
	}
	return mails
}

func FuzzRead(f *testing.F) {
	for _, m := range testMails(f) {
		f.Add(m.mail)
	}
	f.Fuzz(func(t *testing.T, mail []byte) { check(t, mail) })
}

func BenchmarkRead(b *testing.B) {
	mails := testMails(b)
	for b.Loop() {
		for _, m := range mails {
			bounce.Read(m.mail)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(mails)), "µs/mail")
}
