// Package postmark understands the webhooks of Postmark. README.md has sources
// and quirks.
package postmark

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Postmark.
type Adapter struct{}

// A record of type Bounce is told by its own Type, and a change of the
// suppression list by its reason.
var types = []esp.TypeMapping{
	{Theirs: "Delivery", Ours: event.Delivered},
	{Theirs: "HardBounce", Ours: event.Bounced},
	{Theirs: "SoftBounce", Ours: event.Bounced, Note: "Postmark has given up; while it tries it says Transient"},
	{Theirs: "VirusNotification", Ours: event.Bounced, Note: "the recipient's server found a virus; soft"},
	{Theirs: "Transient", Ours: event.Deferred},
	{Theirs: "DnsError", Ours: event.Deferred},
	{Theirs: "OpenRelayTest", Ours: event.Deferred, Note: "the recipient's server took it for a relay test"},
	{Theirs: "AutoResponder", Ours: event.Autoresponded},
	{Theirs: "AddressChange", Ours: event.Autoresponded, Note: "an automatic reply with a new address"},
	{Theirs: "ChallengeVerification", Ours: event.Autoresponded, Note: "an automatic reply that wants the sender confirmed"},
	{Theirs: "Unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "Subscribe", Ours: event.Subscribed},
	{Theirs: "SpamNotification", Ours: event.Complained},
	{Theirs: "SpamComplaint", Ours: event.Complained},
	{Theirs: "BadEmailAddress", Ours: event.Rejected},
	{Theirs: "ManuallyDeactivated", Ours: event.Rejected},
	{Theirs: "Unconfirmed", Ours: event.Rejected},
	{Theirs: "Blocked", Ours: event.Rejected},
	{Theirs: "DMARCPolicy", Ours: event.Rejected},
	{Theirs: "SMTPApiError", Ours: event.Failed},
	{Theirs: "TemplateRenderingFailed", Ours: event.Failed},
	{Theirs: "InboundError", Ours: event.Unknown, Note: "concerns received mail"},
	{Theirs: "Unknown", Ours: event.Unknown, Note: "Postmark could not classify the bounce"},
	{Theirs: "Open", Ours: event.Opened},
	{Theirs: "Click", Ours: event.Clicked},
	{Theirs: "SubscriptionChange.reactivated", Ours: event.Subscribed, Note: "SuppressSending is false"},
	{Theirs: "SubscriptionChange.ManualSuppression", Ours: event.Unsubscribed},
	{Theirs: "SubscriptionChange.HardBounce", Ours: event.Bounced, Note: "hard; the Bounce webhook tells of it too"},
	{Theirs: "SubscriptionChange.SpamComplaint", Ours: event.Complained, Note: "the SpamComplaint webhook tells of it too"},
	{Theirs: "Inbound", Ours: event.Unknown, Note: "a received mail, not the fate of a sent one"},
}

var table = espkit.NewTable(types)

var categories = map[string]event.Category{
	"VirusNotification":   event.Virus,
	"DnsError":            event.DNSFailure,
	"BadEmailAddress":     event.InvalidRecipient,
	"ManuallyDeactivated": event.Suppressed,
	"Blocked":             event.Blocklisted,
	"DMARCPolicy":         event.AuthenticationFailure,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "postmark",
		Title:   "Postmark",
		DocsURL: "https://postmarkapp.com/developer/webhooks/webhooks-overview",
		Protection: "Postmark does not sign. Beside the token in the URL, enter a user name and password for basic authentication, " +
			"and if you like the addresses it posts from: 3.134.147.250, 50.31.156.6, 50.31.156.77, 18.217.206.57.",
		SetUp: []esp.Step{
			{Text: "In Postmark open the server, the message stream, Webhooks, and choose Add webhook. Each message stream has its own webhooks."},
			{Text: "Enter {url} as Webhook URL."},
			{Text: "Under Basic auth credentials enter the user name and password of this source, or write them into the URL, https://user:password@…"},
			{Text: "Tick Delivery, Bounce, Spam complaint, Open, Link click and Subscription change, send a test and save. The content of bounces is not needed here."},
		},
		Retry: "Postmark takes 200 for success and gives up at 403. A bounce comes again up to ten times (1, 5, 10, 10, 10, 15 and 30 minutes, 1, 2 and 6 hours), " +
			"everything else three times (1, 5 and 15 minutes).",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	doc, ok := espkit.Document(req.Body)
	if !ok || !doc.IsObject() {
		return esp.Result{}, espkit.Unreadable("the body is not a JSON object")
	}
	b := espkit.Batch{Record: record}
	b.Add(doc)
	return b.Outcome()
}

var errNoType = errors.New("the record has no RecordType")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	kind := o.Get("RecordType").String()
	if kind == "" {
		return event.Event{}, errNoType
	}
	e := event.Event{Record: bytes.Clone(v), ESPType: kind}
	e.MessageID = o.Get("MessageID").String()
	e.Recipient = espkit.Address(espkit.First(o.Get("Email").String(), o.Get("Recipient").String()))
	e.Subject = o.Get("Subject").String()
	e.Stream = o.Get("MessageStream").String()
	e.Tags = o.Get("Tag").Strings()
	e.Metadata = o.Get("Metadata").Map()
	at := func(member string) { e.OccurredAt = espkit.Time(o.Get(member).String()) }

	switch kind {
	case "Bounce", "SpamComplaint":
		at("BouncedAt")
		if kind == "Bounce" {
			e.ESPType = espkit.First(o.Get("Type").String(), kind)
		}
		e.EventID = o.Get("ID").String()
		e.SendingDomain = espkit.Domain(espkit.Address(o.Get("From").String()))
		e.Diagnostic = espkit.First(o.Get("Details").String(), o.Get("Description").String())
	case "Delivery":
		at("DeliveredAt")
		e.Diagnostic = o.Get("Details").String()
	case "Open", "Click":
		at("ReceivedAt")
		e.IP = o.Get("Geo").Object().Get("IP").String()
		e.UserAgent = o.Get("UserAgent").String()
		e.URL = o.Get("OriginalLink").String()
	case "SubscriptionChange":
		at("ChangedAt")
		switch reason := o.Get("SuppressionReason").String(); {
		case o.Get("SuppressSending").String() == "false":
			e.ESPType += ".reactivated"
		case reason != "":
			e.ESPType += "." + reason
		}
	}
	e.Type = table.Of(e.ESPType)
	e.Category = categories[e.ESPType]
	if e.Type == event.Bounced {
		e.BounceType = event.Soft
		if e.ESPType == "HardBounce" || e.ESPType == "SubscriptionChange.HardBounce" {
			e.BounceType = event.Hard
		}
	}
	espkit.Finish(&e)
	return e, nil
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	o := map[string]any{
		"MessageID": ev.MessageID, "ServerID": 23, "MessageStream": espkit.First(ev.Stream, "outbound"), "Tag": "", "Metadata": map[string]any{},
	}
	if len(ev.Tags) > 0 {
		o["Tag"] = ev.Tags[0] // a message has one tag
	}
	if len(ev.Metadata) > 0 {
		o["Metadata"] = ev.Metadata
	}
	if err := fill(o, ev, espkit.SampleTime(ev, now).Format(time.RFC3339Nano)); err != nil {
		return esp.Request{}, err
	}
	body, err := json.Marshal(o)
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	req, err := espkit.NewRequest(url, "application/json", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	req.Header.Set("User-Agent", "Postmark")
	return req, nil
}

func fill(o map[string]any, ev event.Event, at string) error {
	bounce := func(kind, name string, code int, details string) {
		o["RecordType"], o["Type"], o["Name"], o["TypeCode"] = "Bounce", kind, name, code
		o["ID"], o["Email"], o["From"] = sampleID(ev), ev.Recipient, "shop@"+espkit.First(ev.SendingDomain, "mail.example.com")
		o["BouncedAt"], o["Subject"], o["Details"], o["Description"] = at, ev.Subject, espkit.First(ev.Diagnostic, details), name
		o["DumpAvailable"], o["Inactive"], o["CanActivate"] = false, false, true
	}
	person := func(kind string) {
		o["RecordType"], o["Recipient"], o["ReceivedAt"] = kind, ev.Recipient, at
		o["UserAgent"], o["Geo"], o["Platform"] = ev.UserAgent, map[string]any{"IP": ev.IP}, "Desktop"
	}
	change := func(suppress bool, reason any) {
		o["RecordType"], o["Recipient"], o["ChangedAt"], o["Origin"] = "SubscriptionChange", ev.Recipient, at, "Recipient"
		o["SuppressSending"], o["SuppressionReason"] = suppress, reason
	}
	switch ev.Type {
	case event.Delivered:
		o["RecordType"], o["Recipient"], o["DeliveredAt"], o["Details"] = "Delivery", ev.Recipient, at, espkit.First(ev.Diagnostic, "smtp;250 2.0.0 OK")
	case event.Bounced:
		if ev.BounceType == event.Hard {
			bounce("HardBounce", "Hard bounce", 1, "smtp;550 5.1.1 User unknown")
		} else {
			bounce("SoftBounce", "Soft bounce", 4096, "smtp;452 4.2.2 Mailbox full")
		}
	case event.Deferred:
		bounce("Transient", "Message delayed/Undeliverable", 2, "smtp;451 4.7.1 Try again later")
	case event.Rejected:
		bounce("ManuallyDeactivated", "Manually deactivated", 100002, "Address is on the suppression list")
	case event.Failed:
		bounce("SMTPApiError", "SMTP API error", 100006, "An error occurred while accepting the message")
	case event.Autoresponded:
		bounce("AutoResponder", "Auto responder", 32, "Out of office")
	case event.Complained:
		bounce("SpamComplaint", "Spam complaint", 512, "")
		o["RecordType"] = "SpamComplaint"
	case event.Opened:
		person("Open")
		o["FirstOpen"], o["ReadSeconds"] = true, 0
	case event.Clicked:
		person("Click")
		o["OriginalLink"], o["ClickLocation"] = ev.URL, "HTML"
	case event.Unsubscribed:
		change(true, "ManualSuppression")
	case event.Subscribed:
		change(false, nil)
	default:
		return fmt.Errorf("postmark has no %s event", ev.Type)
	}
	return nil
}

// sampleID is a number, as Postmark's ids are, for whatever id was asked for.
func sampleID(ev event.Event) uint32 {
	return crc32.ChecksumIEEE([]byte(ev.EventID + ev.MessageID + ev.Recipient + string(ev.Type)))
}
