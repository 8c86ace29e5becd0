package bounce_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/bounce"
	"aftersend/event"
)

// replies are answers of mail servers as their documentation, their source or
// mail logs in public write them.
var replies = []struct {
	text string
	want event.Category
}{
	// Gmail: support.google.com/a/answer/3726730
	{"550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces.", event.InvalidRecipient},
	{"550 5.2.1 The email account that you tried to reach is disabled.", event.InactiveMailbox},
	{"550 5.2.1 The email account that you tried to reach is inactive.", event.InactiveMailbox},
	{"452 4.2.2 The email account that you tried to reach is over quota.", event.MailboxFull},
	{"552 5.2.2 The recipient's inbox is out of storage space and inactive.", event.MailboxFull},
	{"450 4.2.1 The user you are trying to contact is receiving mail too quickly.", event.RateLimited},
	{"421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address.", event.RateLimited},
	{"550 5.7.1 The user or domain that you are sending to (or from) has a policy that prohibited the mail that you sent.", event.Policy},
	{"550 5.7.1 Our system has detected that this message is likely unsolicited mail.", event.SpamContent},
	{"550 5.7.26 This mail has been blocked because the sender is unauthenticated.", event.AuthenticationFailure},
	{"550 5.7.27 Your email has been blocked because the sender is unauthenticated. SPF did not pass.", event.AuthenticationFailure},
	{"552 5.2.3 Your message exceeded Google's message size limits.", event.MessageTooLarge},
	{"552 5.7.0 Our system detected an illegal attachment on your message.", event.ContentRejected},
	{"421 4.3.0 Temporary System Problem. Try again later.", event.SystemError},
	{"550 5.4.5 Daily SMTP relay limit exceeded for user.", event.RateLimited},
	{"530 5.5.1 Authentication Required.", event.AuthenticationFailure},
	// Microsoft
	{"550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", event.InvalidRecipient},
	{"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ann@example.com not found by SMTP address lookup", event.InvalidRecipient},
	{"550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [DB5EUR01FT036.eop-EUR01.prod.protection.outlook.com]", event.InvalidRecipient},
	{"550 5.7.606 Access denied, banned sending IP [192.0.2.10]. To request removal from this list please visit https://sender.office.com/", event.Blocklisted},
	{"550 5.7.511 Access denied, banned sender[192.0.2.10].", event.Blocklisted},
	{"550 5.7.1 Service unavailable, Client host [192.0.2.10] blocked using Spamhaus.", event.Blocklisted},
	{"550 5.7.1 Unfortunately, messages from [192.0.2.10] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140).", event.Blocklisted},
	{"421 4.7.0 RP-001 (BAY0-MC1-F1) Unfortunately, some messages from 192.0.2.10 weren't sent. Please try again. We have limits for how many messages can be sent per hour and per day.", event.RateLimited},
	{"451 4.7.500 Server busy. Please try again later from [192.0.2.10].", event.SystemError},
	{"550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not authorized to send to recipient because the sender isn't on the recipient's list", event.Policy},
	{"550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy", event.Policy},
	{"554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", event.MailboxFull},
	{"550 5.2.0 STOREDRV.Deliver: The Microsoft Exchange Information Store service reported an error. The recipient's mailbox is full and can't accept messages now.", event.MailboxFull},
	{"550 5.7.64 TenantAttribution; Relay Access Denied", event.RelayDenied},
	{"550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds, which cannot be sent via DATA", event.ProtocolError},
	{"550 5.7.509 Access denied, sending domain example.com does not pass DMARC verification", event.AuthenticationFailure},
	{"554 5.4.14 Hop count exceeded - possible mail loop ATTR34", event.NetworkError},
	{"550 5.4.310 DNS domain example.con does not exist [Message=InfoDomainNonexistent]", event.InvalidDomain},
	{"550 5.0.350 Remote server returned an error -> 552 5.2.0 Message size exceeds the limit", event.MessageTooLarge},
	// Yahoo, AOL: senders.yahooinc.com/smtp-error-codes
	{"554 delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0] - mta1.mail.bf1.yahoo.com", event.InvalidRecipient},
	{"554 delivery error: dd Not a valid recipient - atlas1.free.mail.bf1.yahoo.com", event.InvalidRecipient},
	{"552 1 Requested mail action aborted, mailbox not found", event.InvalidRecipient},
	{"421 4.7.0 [TSS04] Messages from 192.0.2.10 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1", event.RateLimited},
	{"553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.10, because the ip is in Spamhaus's list; see http://postmaster.yahoo.com/550-bl23.html", event.Blocklisted},
	{"554 5.7.9 Message not accepted for policy reasons. See https://senders.yahooinc.com/error-codes", event.Policy},
	{"554 Message not allowed - [PH01] Email not accepted for policy reasons.", event.Policy},
	{"451 4.3.2 Internal error reading data", event.SystemError},
	{"521 5.2.1 : (CON:B1) https://postmaster.aol.com/error-codes#421conb1", event.Blocklisted},
	// Apple
	{"550 5.1.1 unknown or illegal alias: ann@icloud.com", event.InvalidRecipient},
	{"552 5.2.2 <ann@icloud.com>: user is over quota", event.MailboxFull},
	{"554 5.7.1 [CS01] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137", event.Policy},
	{"554 5.7.1 [HM08] Message rejected due to local policy.", event.Policy},
	{"450 4.1.1 <ann@icloud.com>: Recipient address rejected: unverified address: Address verification in progress", event.InvalidRecipient},
	// Comcast, Cox, Charter
	{"550 5.1.1 Not our Customer", event.InvalidRecipient},
	{"421 4.1.0 192.0.2.10 Throttled - try again later. Please see http://postmaster.comcast.net/smtp-error-codes.php#RL000001", event.RateLimited},
	{"554 resimta-po-01v.sys.comcast.net 192.0.2.10 found on one or more DNSBLs, see http://postmaster.comcast.net/smtp-error-codes.php#BL000001", event.Blocklisted},
	{"550 5.2.0 Message rejected due to spam content. http://postmaster.comcast.net/", event.SpamContent},
	{"552 5.2.0 sender rejected. IP not allowed. AUP#1260", event.Blocklisted},
	// German
	{"554-web.de (mxweb101) Nemesis ESMTP Service not available 554-No SMTP service 554-IP address is black listed.", event.Blocklisted},
	{"550-Requested action not taken: mailbox unavailable 550 For explanation visit http://postmaster.gmx.net/", event.InvalidRecipient},
	{"550-5.7.1 Refused by local policy. Sending of SPAM is not permitted! (B-URL)", event.SpamContent},
	{"450 4.7.0 Maximum number of connections exceeded", event.RateLimited},
	{"550 5.1.1 unknown user / Teilnehmer existiert nicht (t-online.de)", event.InvalidRecipient},
	{"552 5.2.2 <ann@t-online.de>: Quota exceeded (mailbox for user is full) / Das Postfach ist voll", event.MailboxFull},
	{"554 IP=192.0.2.10 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.)", event.Blocklisted},
	{"550 Anti-Spam System: Die Mail wurde als Spam eingestuft", event.SpamContent},
	// French
	{"550 5.2.0 Mail rejete. Mail rejected. ofr_506 [506]", event.SpamContent},
	{"550 5.1.1 Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]", event.InvalidRecipient},
	{"421 mwinf5c20 ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR005_104 [104]", event.RateLimited},
	{"550 5.7.1 Service refuse. Veuillez essayer plus tard. Service refused, please try later. LPN007_108", event.Blocklisted},
	{"550 spam detected - Free.fr", event.SpamContent},
	{"451 too many errors from your ip (192.0.2.10), please visit http://postmaster.free.fr/", event.RateLimited},
	{"550 5.1.1 <ann@sfr.fr>: Boite aux lettres inconnue", event.InvalidRecipient},
	// Italian, Spanish, Portuguese, Polish, Dutch
	{"550 RCPT TO:<ann@libero.it> User unknown", event.InvalidRecipient},
	{"552 RCPT TO:<ann@libero.it> Mailbox disk quota exceeded", event.MailboxFull},
	{"550 casella postale inesistente", event.InvalidRecipient},
	{"550 El usuario no existe", event.InvalidRecipient},
	{"552 El buzon del usuario esta lleno", event.MailboxFull},
	{"550 5.1.1 Caixa postal inexistente", event.InvalidRecipient},
	{"554 5.7.1 Wiadomosc uznana za spam", event.SpamContent},
	{"550 5.1.1 Gebruiker onbekend", event.InvalidRecipient},
	// Russian
	{"550 Message was not accepted -- invalid mailbox. Local mailbox ann@mail.ru is unavailable: user not found", event.InvalidRecipient},
	{"550 Message was not accepted -- invalid mailbox. Local mailbox ann@mail.ru is unavailable: account is disabled", event.InactiveMailbox},
	{"550 spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=abc", event.SpamContent},
	{"451 Try again later (ratelimit)", event.RateLimited},
	{"550 5.7.1 No such user!", event.InvalidRecipient},
	{"554 5.7.1 [1] Message rejected under suspicion of SPAM; https://ya.cc/1IrBc", event.SpamContent},
	{"550 5.7.1 Policy rejection on the target address (yandex)", event.Policy},
	// East Asian
	{"550 Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1&&no=1000728", event.InvalidRecipient},
	{"550 Mail content denied. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000726", event.SpamContent},
	{"550 Connection frequency limited. http://service.mail.qq.com/", event.RateLimited},
	{"550 Mailbox unavailable or access denied [Mxx]", event.InvalidRecipient},
	{"550 Domain frequency limited [Mxx]", event.RateLimited},
	{"550 SPF check failed. http://service.mail.qq.com/", event.AuthenticationFailure},
	{"550 User not found: ann@163.com", event.InvalidRecipient},
	{"550 User suspended", event.InactiveMailbox},
	{"554 DT:SPM 126 smtp1,C8CowAD3", event.SpamContent},
	{"451 DT:SPM please try again", event.SpamContent},
	{"550 RP:CEL 163 mx5", event.RateLimited},
	{"552 Quota exceeded or service disabled.", event.MailboxFull},
	{"553 Requested action not taken: NULL sender is not allowed", event.SenderRejected},
	{"550 Unknown user ann@docomo.ne.jp", event.InvalidRecipient},
	{"550 5.2.0 Mail rejected by the recipient's domain filter (docomo)", event.Policy},
	{"550 <ann@ezweb.ne.jp>: User unknown", event.InvalidRecipient},
	{"452 4.3.2 Requested action aborted; try again later (softbank)", event.SystemError},
	{"550 Invalid recipient: <ann@i.softbank.jp>", event.InvalidRecipient},
	{"552 5.7.1 <ann@naver.com> mailbox full (naver)", event.MailboxFull},
	{"421 4.4.0 [internal] no MXs for this domain could be reached at this time", event.NetworkError},
	// MTAs
	{"550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in virtual alias table", event.InvalidRecipient},
	{"554 5.7.1 <ann@example.com>: Relay access denied", event.RelayDenied},
	{"450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.10]", event.AuthenticationFailure},
	{"554 5.7.1 <unknown[192.0.2.10]>: Client host rejected: Access denied", event.Blocklisted},
	{"450 4.1.8 <shop@example.com>: Sender address rejected: Domain not found", event.SenderRejected},
	{"504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", event.ProtocolError},
	{"450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.com.html", event.Greylisted},
	{"451 4.7.1 Greylisting in action, please come back later", event.Greylisted},
	{"451 4.3.0 <ann@example.com>: Temporary lookup failure", event.SystemError},
	{"452 4.3.1 Insufficient system storage", event.SystemError},
	{"552 5.3.4 Message size exceeds fixed limit", event.MessageTooLarge},
	{"554 5.4.6 Too many hops", event.NetworkError},
	{"mail for example.com loops back to myself", event.NetworkError},
	{"host mx.example.com[192.0.2.20] refused to talk to me: 421 4.7.0 Too many connections", event.RateLimited},
	{"lost connection with mx.example.com[192.0.2.20] while sending RCPT TO", event.NetworkError},
	{"conversation with mx.example.com[192.0.2.20] timed out while sending MAIL FROM", event.NetworkError},
	{"Host or domain name not found. Name service error for name=example.con type=AAAA: Host not found", event.InvalidDomain},
	{"Host or domain name not found. Name service error for name=mx.example.com type=A: Host not found, try again", event.DNSFailure},
	{"Domain example.com does not accept mail (nullMX)", event.InvalidDomain},
	{"maildir delivery failed: mailbox quota exceeded", event.MailboxFull},
	{"can't create user output file. Command output: procmail: Quota exceeded while writing \"/var/mail/ann\"", event.MailboxFull},
	{"Sorry, no mailbox here by that name. (#5.1.1)", event.InvalidRecipient},
	{"Sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", event.RelayDenied},
	{"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)", event.NetworkError},
	{"Sorry, I couldn't find any host named example.con. (#5.1.2)", event.InvalidDomain},
	{"Sorry. Although I'm listed as a best-preference MX or A for that host, it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)", event.NetworkError},
	{"CNAME lookup failed temporarily. (#4.4.3)", event.DNSFailure},
	{"Recipient's mailbox is full, message returned to sender. (#5.2.2)", event.MailboxFull},
	{"Unrouteable address", event.InvalidDomain},
	{"all relevant MX records point to non-existent hosts", event.InvalidDomain},
	{"retry timeout exceeded", event.GaveUp},
	{"550 Verification failed for <shop@example.com> 550 Sender verify failed", event.SenderRejected},
	{"550 relay not permitted", event.RelayDenied},
	{"550 Administrative prohibition", event.Policy},
	{"550 No such recipient here", event.InvalidRecipient},
	{"552 Message size exceeds maximum permitted", event.MessageTooLarge},
	{"550-Callback setup failed while verifying <shop@example.com>", event.SenderRejected},
	{"550 5.7.1 This message has been blocked because it contains a banned attachment", event.ContentRejected},
	{"554 5.6.0 Reject, id=01234-01 - BANNED: .exe", event.ContentRejected},
	{"554 5.7.0 Reject, id=01234-01 - INFECTED: Eicar-Test-Signature", event.Virus},
	{"550 5.7.1 Spam message rejected (rspamd)", event.SpamContent},
	{"554 5.7.1 Spam message rejected; If this is not spam contact abuse@example.com", event.SpamContent},
	{"451 4.7.1 Try again later", ""},
	{"550 permanent failure for one or more recipients (ann@example.com:blocked)", event.Policy}, // Barracuda
	{"550 permanent failure for one or more recipients (ann@example.com:550 5.1.1 User unknown)", event.InvalidRecipient},
	{"554 5.7.1 Message blocked due to spam content in the message.", event.SpamContent},
	{"550 Administrative prohibition - envelope blocked - https://community.mimecast.com/docs/DOC-1369#550", event.Policy},
	{"550 Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550", event.InvalidRecipient},
	{"451 Internal resources are temporarily unavailable - https://community.mimecast.com/docs/DOC-1369#451", event.SystemError},
	{"550 csi.mimecast.org Poor Reputation Sender. - https://community.mimecast.com/docs/DOC-1369#550", event.Blocklisted},
	{"554 5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.10", event.Blocklisted},
	{"550 5.1.1 User Unknown (Proofpoint Essentials)", event.InvalidRecipient},
	{"553-SPF (Sender Policy Framework) domain authentication fail. Refer to the Troubleshooting page at http://www.symanteccloud.com/troubleshooting", event.AuthenticationFailure},
	{"553-Message filtered. Refer to the Troubleshooting page at http://www.symanteccloud.com/troubleshooting for more information. (#5.7.1)", event.Policy},
	{"501 Connection rejected by policy [7.7] 36308, please visit www.messagelabs.com/support for more details about this error message.", event.Blocklisted},
	{"554 Sending address not accepted due to spam filter", event.SenderRejected},
	{"550 #5.1.0 Address rejected.", event.InvalidRecipient},
	{"550 #5.7.1 Your access to submit messages to this e-mail system has been rejected.", event.Policy},
	{"554-esa1.example.com 554 Your access to this mail system has been rejected due to the sending MTA's poor reputation.", event.Blocklisted},
	{"550 5.7.1 recipient refused: mailbox does not exist", event.InvalidRecipient},
	{"550 5.1.1 sorry, no mailbox here by that name (#5.1.1 - chkuser)", event.InvalidRecipient},
	{"511 sorry, no mailbox here by that name (#5.1.1 - chkuser)", event.InvalidRecipient},
	{"550 User account has been deactivated", event.InactiveMailbox},
	{"550 5.2.1 Mailbox disabled for this recipient", event.InactiveMailbox},
	{"550 5.7.1 Mail from 192.0.2.10 refused by blackhole site zen.spamhaus.org", event.Blocklisted},
	{"571 Email from 192.0.2.10 is currently blocked by Verizon Online's anti-spam system.", event.Blocklisted},
	{"554 The message was rejected because it contains prohibited virus or spam content", event.SpamContent},
	{"550 5.7.515 Access denied, sending domain EXAMPLE.COM doesn't meet the required authentication level.", event.AuthenticationFailure},
	{"smtp; 550 5.1.1 Recipient address is on the account suppression list", event.Suppressed},
	{"550 5.1.6 Recipient no longer on server: ann@example.com", event.InvalidRecipient},
	{"554 rejected: message contains a URL on a blocklist (surbl)", event.SpamContent},
	{"550 Too many invalid recipients", event.RateLimited},
	{"503 5.5.1 Error: need MAIL command", event.ProtocolError},
	{"454 4.7.0 TLS not available due to local problem", event.ProtocolError},
	{"TLS is required, but was not offered by host mx.example.com[192.0.2.20]", event.ProtocolError},
	{"Server certificate not trusted", event.ProtocolError},
	{"SMTPUTF8 is required, but was not offered by host mx.example.com[192.0.2.20]", event.ProtocolError},
}

func TestReplies(t *testing.T) {
	for _, r := range replies {
		if g := bounce.CategoryOf(r.text); g != r.want {
			t.Errorf("%s, want %s: %s", g, r.want, r.text)
		}
	}
}

func TestRulesHoldTheirExamples(t *testing.T) {
	for text, want := range bounce.RuleExamples() {
		if g := bounce.CategoryOf(text); g != want {
			t.Errorf("%s, want %s: %s", g, want, text)
		}
	}
}
