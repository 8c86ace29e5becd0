// Package sns takes the envelope off what a service like Amazon SNS posts over
// HTTP, and verifies its signature. Amazon SES and Scaleway share it. It
// imports esp, espkit and the standard library only.
package sns

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

// Service is one implementation of SNS.
type Service struct {
	// CertificateHost is where the service publishes its signing certificates,
	// and CertificateFile how the path to one ends. A URL elsewhere is never
	// fetched: whoever controls it could sign anything.
	CertificateHost *regexp.Regexp
	CertificateFile *regexp.Regexp
	// ConfirmHost is where subscriptions are confirmed.
	ConfirmHost *regexp.Regexp
	// Trust says whether the service issued a certificate. Without it, having
	// been fetched from CertificateHost over TLS is enough.
	Trust Trust
	// SampleCertificate is the SigningCertURL of samples.
	SampleCertificate string
}

// TopicField is the field of a source that every Service needs: any customer
// of the service can have genuine messages posted, from topics of their own.
var TopicField = esp.Field{
	Name: "topic_arn", Label: "Topic ARN", Required: true,
	Help: "The ARN of the topic that is subscribed to the URL shown here; several are separated by spaces or commas. Messages from other topics are refused.",
}

// The kinds of messages.
const (
	notification   = "Notification"
	subscription   = "SubscriptionConfirmation"
	unsubscription = "UnsubscribeConfirmation"
)

// Content is what is in the envelope.
type Content struct {
	Text      string // what was published; "" when there is nothing to read
	MessageID string // of SNS; "" with raw delivery, which has no envelope
	Confirm   string // the URL that confirms the subscription, when this asks for it and its host is right
}

// Open takes the envelope off.
func (s Service) Open(req esp.Request) (Content, error) {
	if req.Method == http.MethodHead {
		return Content{}, nil
	}
	doc, ok := espkit.Document(req.Body)
	if !ok || !doc.IsObject() {
		return Content{}, espkit.Unreadable("the body is not a JSON object")
	}
	envelope := doc.Object()
	switch envelope.Get("Type").String() {
	case notification:
		c := Content{Text: envelope.Get("Message").String(), MessageID: envelope.Get("MessageId").String()}
		if c.Text == "" {
			return Content{}, espkit.Unreadable("the notification has no Message")
		}
		return c, nil
	case subscription:
		var c Content
		if raw := envelope.Get("SubscribeURL").String(); at(raw, s.ConfirmHost) != nil {
			c.Confirm = raw
		}
		return c, nil
	case unsubscription:
		return Content{}, nil
	case "":
		return Content{Text: string(doc)}, nil // raw message delivery
	}
	return Content{}, espkit.Unreadable("the type of the SNS message is not known")
}

// at returns the parsed URL when it is https on a host that fits, without
// port, user or anything else that could lead elsewhere.
func at(raw string, host *regexp.Regexp) *url.URL {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.User != nil || !host.MatchString(u.Host) {
		return nil
	}
	return u
}

// topics are the ARNs the operator entered.
func topics(s esp.Secrets) []string {
	return strings.FieldsFunc(s[TopicField.Name], func(r rune) bool { return strings.ContainsRune(" ,;\t\r\n", r) })
}
