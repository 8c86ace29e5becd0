package espkit_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

func TestSMTPCode(t *testing.T) {
	for diagnostic, want := range map[string]int{
		"550 5.1.1 User unknown":               550,
		"550-5.1.1 one\n550 5.1.1 two":         550,
		"smtp;452 4.2.2 over quota":            452,
		"host mx[198.51.100.250] said: 554 no": 554,
		"ends with 421":                        421,
		"250":                                  250,
		"5.1.1 no reply code":                  0,
		"port 2525 closed":                     0,
		"id 1550 x":                            0,
		"10.0.0.550 x":                         0,
		"550, comma":                           0,
		"350 is no final reply":                0,
		"queued as 4Tn2; 999 451":              451,
		"http://198.51.100.7/451 then 451 4.7.1 again": 451,
		"":   0,
		"55": 0,
	} {
		require.Equal(t, want, espkit.SMTPCode(diagnostic), diagnostic)
	}
}

func TestEnhancedStatus(t *testing.T) {
	for diagnostic, want := range map[string]string{
		"550 5.1.1 User unknown":     "5.1.1",
		"(#5.7.1)":                   "5.7.1",
		"552-5.2.2 see 4.2.2.1":      "5.2.2",
		"4.2.2.1 is an address":      "",
		"5.1.1.":                     "", // a dot beside it
		"15.1.1 5.1.10":              "5.1.10",
		"5.1234.1":                   "",
		"5.1.1234":                   "",
		"3.1.1 1.2.3 5.7":            "",
		"2.0.0":                      "2.0.0",
		"version 4.5.6-rc, so 4.5.6": "4.5.6",
		"":                           "",
	} {
		require.Equal(t, want, espkit.EnhancedStatus(diagnostic), diagnostic)
	}
	require.Equal(t, "5.1.1", espkit.Status(" 5.1.1 "))
	require.Empty(t, espkit.Status("5.1.1 (bad mailbox)"))
	require.Equal(t, 550, espkit.ReplyCode(" 550"))
	for _, none := range []string{"", "x", "605", "99", "5.1", "-550"} {
		require.Zero(t, espkit.ReplyCode(none), none)
	}
}

func TestTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"1767323045":                          at,
		"1767323045.25":                       at.Add(250 * time.Millisecond),
		"1767323045.123456789":                at.Add(123456 * time.Microsecond),
		"1.767323045e9":                       at,
		"1767323045000":                       at,
		"1767323045000123":                    at.Add(123 * time.Microsecond),
		" 2026-01-02T03:04:05Z ":              at,
		"2026-01-02T04:04:05.1234567+01:00":   at.Add(123456 * time.Microsecond),
		"2026-01-02T03:04:05+0000":            at,
		"2026-01-02 03:04:05 +0000":           at,
		"2026-01-02 02:04:05-01:00":           at,
		"2026-01-02 03:04:05":                 {}, // no zone
		"0":                                   {},
		"-5":                                  {},
		"99999999999999999999":                {},
		"9223372036854775807":                 {},
		"NaN":                                 {},
		"1e400":                               {},
		"Inf":                                 {},
		"yesterday":                           {},
		"":                                    {},
		"17673230451767323045.17673230451767": {},
	} {
		got := espkit.Time(text)
		require.Equal(t, want, got, text)
		require.Equal(t, time.UTC, got.Location(), text)
	}
	require.Equal(t, at, espkit.TimeUTC("2026-01-02 03:04:05", time.DateTime))
	require.Equal(t, at, espkit.TimeUTC("1767323045", time.DateTime), "else as Time")
}

func TestDocument(t *testing.T) {
	for _, doc := range []string{`{}`, " [1, -0.5e+7, \"x\\u00e9\", true, false, null, {\"a\":{}}] \n", "\ufeff{\"a\":1}", "\"raw\ttab\"", `"\/ \x"`, `0`} {
		_, ok := espkit.Document([]byte(doc))
		require.True(t, ok, doc)
	}
	for _, doc := range []string{"", " ", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `"open`, `"\"`, "01", "1.", "-", ".5", "1e", "nul", "+1", "{} {}", "{}x", `{a:1}`, `['a']`,
		strings.Repeat("[", 100_000), strings.Repeat("[", 300) + strings.Repeat("]", 300)} {
		_, ok := espkit.Document([]byte(doc))
		require.False(t, ok, "%.40s", doc)
	}
}

func TestValue(t *testing.T) {
	v, ok := espkit.Document([]byte(`{"s":"a\n\u00e9\ud83d\ude00\ud83d\/\"\\","n":13792286917004336123,"f":1.50,"b":true,"z":null,"e":"","o":{"k":[1]},"l":["a","",2,null],
		"l0":[],"o0":{},"dup":1,"dup":2,"\u0064ecoded":"yes","bad":"caf` + "\xe9" + `"}`))
	require.True(t, ok)
	o := v.Object()
	require.Equal(t, "a\né😀\ufffd/\"\\", o.Get("s").String())
	require.Equal(t, "13792286917004336123", o.Get("n").String(), "numbers keep their precision")
	require.Equal(t, "true", o.Get("b").String())
	for _, nothing := range []string{"z", "e", "o", "l", "absent"} {
		require.Empty(t, o.Get(nothing).String(), nothing)
	}
	require.False(t, o.Get("z").Present())
	require.False(t, o.Get("absent").Present())
	require.True(t, o.Get("e").Present())
	require.Equal(t, "2", o.Get("dup").String(), "the last of several")
	require.Equal(t, "yes", o.Get("decoded").String())
	require.Equal(t, "caf\ufffd", o.Get("bad").String())
	require.Equal(t, []string{"a", "2"}, o.Get("l").Strings())
	require.Equal(t, []string{"true"}, o.Get("b").Strings(), "a single text is a list of one")
	require.Nil(t, o.Get("z").Strings())
	require.Nil(t, o.Get("l0").Map(), "an empty list stands for an empty object")
	require.Nil(t, o.Get("o0").Map())
	require.Equal(t, map[string]any{"k": []any{json.Number("1")}}, o.Get("o").Map())
	require.Nil(t, espkit.Value(nil).Object())
	require.Nil(t, o.Get("s").Elements())

	all, err := json.Marshal(v.Map())
	require.NoError(t, err, "metadata can be written again")
	require.Contains(t, string(all), "1.50")
}

// texts is a batch whose records are objects with a member a, and its result
// as text: the members, "!" for problems.
func texts(add func(b *espkit.Batch) bool) (string, bool) {
	b := espkit.Batch{Record: func(v espkit.Value) (event.Event, error) {
		if a := v.Object().Get("a"); a.Present() {
			return event.Event{MessageID: a.String()}, nil
		}
		return event.Event{}, errors.New("no a")
	}}
	found := add(&b)
	parts := make([]string, len(b.Result.Events)+len(b.Result.Problems))
	for _, p := range b.Result.Problems {
		parts[p.Record] = "!"
	}
	rest := b.Result.Events
	for i := range parts {
		if parts[i] == "" {
			parts[i], rest = rest[0].MessageID, rest[1:]
		}
	}
	return strings.Join(parts, " "), found
}

func TestAddArray(t *testing.T) {
	for doc, want := range map[string]string{
		`[]`:                               "",
		` [{"a":1}, {"a":2} ] `:            "1 2",
		`[{"a":1},{"b":1},7,null,{"a":2}]`: "1 ! ! ! 2",
		`[{"a":1},oops,{"a":2}]`:           "1 ! 2",
		`[oops, {"a":2}]`:                  "! 2",
		`[{"a":"<a href="x">"},{"a":1}]`:   "! 1",
		`[{"a":"no end},{"a":1},{"a":2}]`:  "! 1 2",
		`[{"a":"no end,{"a":1},{"a":2}]`:   "! 1 2",
		`[{"a":1}{"a":2}]`:                 "1 2",
		`[{"a":1}`:                         "1 !",
		`[{"a":1},`:                        "1 !",
		`[{"a":1},{"b"`:                    "1 !",
		`[{"a":1}]x`:                       "1 !",
		`[{"x":tru,"y":[{"z":1},{"z":2}],"k":"v"},{"l":[{"z":1},{"z":2}],"a":2},{"a":3}]`: "! 2 3",
		`{"x":[1],"list":[{"a":1}]}`:  "1",
		`{"list":[{"a":1}],"x":{}}`:   "1",
		`{"list":[{"a":1}],"x":`:      "1 !",
		`{"list":[{"a":1}`:            "1 !",
		`{"list":[x,{"a":1}],"x":{}}`: "! 1",
	} {
		got, found := texts(func(b *espkit.Batch) bool { return b.AddArray([]byte(doc), "list") })
		require.True(t, found, doc)
		require.Equal(t, want, got, doc)
	}
	for _, doc := range []string{"", "x", "{}", `{"other":[]}`, `{"list":{}}`, `{"list":null}`, `{"broken`, `{"a":x,"list":[]}`} {
		_, found := texts(func(b *espkit.Batch) bool { return b.AddArray([]byte(doc), "list") })
		require.False(t, found, doc)
	}
}

func TestAddLines(t *testing.T) {
	got, _ := texts(func(b *espkit.Batch) bool {
		b.AddLines([]byte("\ufeff{\"a\":1}\r\n\r\n{\"a\n[]\n {\"a\":2}"))
		return true
	})
	require.Equal(t, "1 ! ! 2", got)
}

// TestOneBadRecordOfAThousand: one bad record loses one record, wherever it is.
func TestOneBadRecordOfAThousand(t *testing.T) {
	good := `{"a":"open","msg":{"clicks":[{"ts":1},{"ts":2}],"subject":"a \"quote\", and more"}}`
	for _, bad := range []string{`{"a":"open`, `{"a":}`, `nonsense`, `{"a":"click","url":"<a href="x">y</a>"}`, "\x00", `{"a":tru}`, `{"a":"x","l":[{"ts":1},{"ts":2`} {
		for _, at := range []int{0, 500, 998} {
			records := make([]string, 1000)
			for i := range records {
				records[i] = good
			}
			records[at] = bad
			got, _ := texts(func(b *espkit.Batch) bool { return b.AddArray([]byte("["+strings.Join(records, ",")+"]"), "") })
			require.Equal(t, 999, strings.Count(got, "open"), "%s at %d", bad, at)
			require.Equal(t, at, strings.Count(strings.Split(got, "!")[0], "open"), "%s at %d", bad, at)
		}
	}
}

func TestBatchesAreBounded(t *testing.T) {
	for _, record := range []string{`{"a":1},`, `{},`} {
		b := espkit.Batch{Record: func(v espkit.Value) (event.Event, error) {
			if len(v) == 2 {
				return event.Event{}, errors.New("empty")
			}
			return event.Event{}, nil
		}}
		require.True(t, b.AddArray([]byte("["+strings.Repeat(record, 100_000)+"{}]"), ""))
		require.LessOrEqual(t, len(b.Result.Events), 20_000)
		require.LessOrEqual(t, len(b.Result.Problems), 1_000)
		require.NotEmpty(t, b.Result.Problems, "it is said that not all were taken")
	}
}

func TestOutcome(t *testing.T) {
	problems := []esp.Problem{{Record: 3, Reason: "the record has no type"}}
	_, err := (&espkit.Batch{Result: esp.Result{Problems: problems}}).Outcome()
	require.ErrorIs(t, err, esp.ErrUnreadable)
	require.ErrorContains(t, err, "the record has no type")
	_, err = (&espkit.Batch{Result: esp.Result{Problems: problems, Events: []event.Event{{}}}}).Outcome()
	require.NoError(t, err)
	_, err = (&espkit.Batch{}).Outcome()
	require.NoError(t, err)
}

func TestForm(t *testing.T) {
	f := espkit.ParseForm([]byte("a=1&b=x+y%20z&&c&a=2&d=%zz%4&tags%5B%5D=t1&tags[1]=t2&tags=&tagsx=no&e=%e9&=v&g=h=i"))
	require.Equal(t, "1", f.Get("a"))
	require.Equal(t, "x y z", f.Get("b"))
	require.True(t, f.Has("c"))
	require.False(t, f.Has("z"))
	require.Equal(t, "%zz%4", f.Get("d"), "a broken escape stands for itself")
	require.Equal(t, []string{"t1", "t2"}, f.List("tags"))
	require.Equal(t, "\ufffd", f.Get("e"))
	require.Equal(t, "h=i", f.Get("g"))
	require.Empty(t, espkit.ParseForm(nil))
	require.Len(t, espkit.ParseForm([]byte(strings.Repeat("a&", 50_000))), 10_000)
}

func TestFinish(t *testing.T) {
	e := event.Event{
		Diagnostic: "  550 5.1.1 " + strings.Repeat("é", 20_000), Recipient: strings.Repeat("a", 5000),
		SendingDomain: "said.example", OccurredAt: time.Unix(1, 1999).In(time.FixedZone("", 3600)),
		Metadata: map[string]any{"campaign_id": json.Number("7"), "sending_domain": "other.example", "bridge": "b1", "sending_node": true},
	}
	espkit.Finish(&e)
	require.Equal(t, 550, e.SMTPCode)
	require.Equal(t, "5.1.1", e.EnhancedStatus)
	require.LessOrEqual(t, len(e.Diagnostic), 16*1024)
	require.NotContains(t, e.Diagnostic, "\ufffd", "cut between characters")
	require.Len(t, e.Recipient, 1024)
	require.Equal(t, "7", e.CampaignID)
	require.Equal(t, "b1", e.Bridge)
	require.Equal(t, "said.example", e.SendingDomain, "what the ESP says wins")
	require.Empty(t, e.SendingNode)
	require.Equal(t, time.Unix(1, 1000).UTC(), e.OccurredAt)

	explicit := event.Event{Diagnostic: "550 5.1.1 x", SMTPCode: 551, EnhancedStatus: "5.7.1"}
	espkit.Finish(&explicit)
	require.Equal(t, 551, explicit.SMTPCode)
	require.Equal(t, "5.7.1", explicit.EnhancedStatus)
}

func TestReadNotice(t *testing.T) {
	report := func(status, rest string) string {
		return "From: MAILER-DAEMON@mx.example.net\r\nAuto-Submitted: auto-replied\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nText: with\r\n--b\r\n" + status + rest + "--b--\r\n"
	}
	one := "Reporting-MTA: dns; mx.example.net\r\n\r\nFinal-Recipient: rfc822; <A@example.com>\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
	two := one + "Final-Recipient: rfc822; b@example.com\r\nAction: Delayed (still trying)\r\nStatus: 4.0.0\r\nDiagnostic-Code: smtp;\r\n 452 4.2.2 full\r\n\r\n"
	plain := "Content-Type: message/delivery-status\r\n\r\n"

	require.Equal(t, espkit.Notice{Action: "failed", Status: "5.1.1"}, espkit.ReadNotice(report(plain+one, ""), "a@example.com"))
	want := espkit.Notice{Action: "delayed", Status: "4.2.2", SMTPCode: 452, Diagnostic: "smtp; 452 4.2.2 full"}
	require.Equal(t, want, espkit.ReadNotice(report(plain+two, ""), "B@EXAMPLE.com"), "the named one; x.0.0 made precise")
	require.Equal(t, "failed", espkit.ReadNotice(report(plain+two, ""), "other@example.com").Action, "else the first")
	require.Equal(t, want, espkit.ReadNotice(strings.ReplaceAll(report(plain+two, ""), "\r\n", "\n"), "b@example.com"), "bare newlines")

	quoted := "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Replace(one, "failed", "f=61iled", 1)
	require.Equal(t, "failed", espkit.ReadNotice(report(quoted, ""), "").Action)

	returned := "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\nmessage-id: <1@shop.example>\r\n\r\nHello\r\n"
	require.Equal(t, "<1@shop.example>", espkit.ReadNotice(report(plain+one, returned), "").MessageID)

	require.True(t, espkit.ReadNotice("Auto-Submitted: Auto-Replied (vacation)\r\n\r\naway", "").AutoReply)
	require.True(t, espkit.ReadNotice("X-Autorespond: \r\n\r\naway", "").AutoReply)
	require.False(t, espkit.ReadNotice("Auto-Submitted: no\r\n\r\nhi", "").AutoReply)
	require.Zero(t, espkit.ReadNotice("", ""))
	require.Zero(t, espkit.ReadNotice("Subject: Re\r\n\r\nAction: failed\r\n", ""))
}

func TestAddresses(t *testing.T) {
	require.Equal(t, "a@example.com", espkit.Address(` "A, B" <a@example.com>`))
	require.Equal(t, "a@example.com", espkit.Address(" a@example.com "))
	require.Equal(t, "example.com", espkit.Domain("A <a@Example.COM>"))
	require.Empty(t, espkit.Domain("nobody"))
	require.Equal(t, event.Hard, espkit.BounceByCode(550, "4.1.1"))
	require.Equal(t, event.Soft, espkit.BounceByCode(0, "4.1.1"))
	require.Equal(t, event.Undetermined, espkit.BounceByCode(0, ""))
	require.Equal(t, event.Undetermined, espkit.BounceByCode(250, ""))
}
