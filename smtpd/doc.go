// Package smtpd is the room for taking bounce mails in over SMTP and LMTP. A
// bounce mail is a callback like any other: what this room accepts goes to the
// flusher of package intake, is answered 250 once it is committed, and is
// processed by the same workflow. It lies beside api and may import what api
// may. Nothing is in it yet: bounces come as callbacks of the ESPs.
package smtpd
