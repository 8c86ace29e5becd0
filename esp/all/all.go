// Package all lists every adapter. It is the one place outside an ESP's own
// folder that a new adapter is entered, and a test notices when it is not.
package all

import (
	"strings"

	"aftersend/esp"
	"aftersend/esp/brevo"
	"aftersend/esp/elasticemail"
	"aftersend/esp/everlytic"
	"aftersend/esp/kumomta"
	"aftersend/esp/mailersend"
	"aftersend/esp/mailgun"
	"aftersend/esp/mailjet"
	"aftersend/esp/mailtrap"
	"aftersend/esp/mandrill"
	"aftersend/esp/mumaraone"
	"aftersend/esp/postal"
	"aftersend/esp/postmark"
	"aftersend/esp/powermta"
	"aftersend/esp/resend"
	"aftersend/esp/scaleway"
	"aftersend/esp/sendgrid"
	"aftersend/esp/ses"
	"aftersend/esp/smtp2go"
	"aftersend/esp/smtpeter"
	"aftersend/esp/sparkpost"
	"aftersend/esp/unisendergo"
)

var adapters = []esp.Adapter{
	brevo.Adapter{},
	elasticemail.Adapter{},
	everlytic.Adapter{},
	kumomta.Adapter{},
	mailersend.Adapter{},
	mailgun.Adapter{},
	mailjet.Adapter{},
	mailtrap.Adapter{},
	mandrill.Adapter{},
	mumaraone.Adapter{},
	postal.Adapter{},
	postmark.Adapter{},
	powermta.Adapter{},
	resend.Adapter{},
	scaleway.Adapter{},
	sendgrid.Adapter{},
	ses.Adapter{},
	smtp2go.Adapter{},
	smtpeter.Adapter{},
	sparkpost.Adapter{},
	unisendergo.Adapter{},
}

var byName = func() map[string]esp.Adapter {
	m := make(map[string]esp.Adapter)
	for _, a := range adapters {
		d := a.Describe()
		m[d.Name] = a
		for _, alias := range d.Aliases {
			m[alias] = a
		}
	}
	return m
}()

// Adapters returns every adapter, in the order of their names.
func Adapters() []esp.Adapter { return append([]esp.Adapter(nil), adapters...) }

// ByName finds an adapter by its name or an alias, in any case.
func ByName(name string) (esp.Adapter, bool) {
	a, ok := byName[strings.ToLower(name)]
	return a, ok
}
