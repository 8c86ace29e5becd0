package bounce

import (
	"strings"

	"aftersend/event"
)

// The enhanced status codes of the IANA registry (RFC 3463, 5248, 4954, 6531,
// 6710, 7293, 7372, 7505, 8616), without their class, and the categories
// nearest to them.

// certainCodes say more than any text with them, or are known to be used so
// by the one receiver that uses them.
var certainCodes = map[string]event.Category{
	"7.26":  event.AuthenticationFailure,
	"7.25":  event.AuthenticationFailure,
	"7.606": event.Blocklisted, "7.511": event.Blocklisted, "7.708": event.Blocklisted, // learn.microsoft.com, NDR codes
	"7.650": event.RateLimited,
	"7.515": event.AuthenticationFailure, "7.509": event.AuthenticationFailure, "7.512": event.AuthenticationFailure,
	"7.28": event.RateLimited,
}

// specificCodes tell the reason by themselves.
var specificCodes = map[string]event.Category{
	"1.1": event.InvalidRecipient, "1.3": event.InvalidRecipient, "1.4": event.InvalidRecipient, "1.6": event.InvalidRecipient,
	"1.2": event.InvalidDomain, "1.10": event.InvalidDomain, "1.7": event.SenderRejected, "1.8": event.SenderRejected,
	"2.1": event.InactiveMailbox, "2.2": event.MailboxFull, "2.3": event.MessageTooLarge, "2.4": event.InvalidRecipient,
	"3.1": event.SystemError, "3.2": event.SystemError, "3.3": event.SystemError, "3.5": event.SystemError, "3.4": event.MessageTooLarge,
	"4.1": event.NetworkError, "4.2": event.NetworkError, "4.3": event.DNSFailure, "4.4": event.DNSFailure,
	"4.5": event.RateLimited, "4.6": event.NetworkError, "4.7": event.GaveUp,
	"5.1": event.ProtocolError, "5.2": event.ProtocolError, "5.3": event.RateLimited, "5.4": event.ProtocolError, "5.5": event.ProtocolError, "5.6": event.ProtocolError,
	"6.1": event.ContentRejected, "6.2": event.ContentRejected, "6.3": event.ContentRejected, "6.4": event.ContentRejected, "6.5": event.ContentRejected,
	"6.7": event.ProtocolError, "6.8": event.ProtocolError, "6.9": event.ProtocolError, "6.10": event.ProtocolError,
	"7.2": event.Policy, "7.3": event.Policy, "7.4": event.ProtocolError, "7.5": event.ProtocolError, "7.6": event.Policy, "7.7": event.Policy,
	"7.8": event.AuthenticationFailure, "7.12": event.AuthenticationFailure,
	"7.10": event.ProtocolError, "7.11": event.ProtocolError, "7.30": event.ProtocolError,
	"7.13": event.InactiveMailbox, "7.14": event.Policy, "7.15": event.Policy, "7.16": event.Policy, "7.17": event.InvalidRecipient, "7.18": event.InvalidDomain, "7.19": event.Policy,
	"7.20": event.AuthenticationFailure, "7.21": event.AuthenticationFailure, "7.22": event.AuthenticationFailure, "7.23": event.AuthenticationFailure, "7.24": event.AuthenticationFailure,
	"7.25": event.AuthenticationFailure, "7.26": event.AuthenticationFailure, "7.29": event.AuthenticationFailure, "7.27": event.SenderRejected, "7.28": event.RateLimited,

	// Microsoft's, outside of the registry.
	// learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online
	"1.20": event.SenderRejected, "1.90": event.RateLimited, "1.350": event.InvalidRecipient, "1.351": event.InvalidRecipient, "2.121": event.RateLimited, "2.122": event.RateLimited,
	"4.310": event.InvalidDomain, "4.311": event.DNSFailure, "4.312": event.DNSFailure, "4.315": event.NetworkError, "4.316": event.NetworkError, "4.317": event.NetworkError, "4.300": event.GaveUp,
	"4.14": event.NetworkError, "4.20": event.SystemError, "4.101": event.SystemError, "7.57": event.AuthenticationFailure, "7.64": event.RelayDenied,
	"7.124": event.Policy, "7.129": event.Policy, "7.133": event.Policy, "7.134": event.Policy, "7.135": event.Policy, "7.136": event.Policy,
	"7.501": event.Blocklisted, "7.502": event.Blocklisted, "7.503": event.Blocklisted, "7.504": event.InvalidRecipient, "7.505": event.InvalidRecipient, "7.506": event.ProtocolError, "7.507": event.Policy, "7.508": event.RateLimited, "7.510": event.AuthenticationFailure, "7.513": event.Blocklisted,
	"7.705": event.RateLimited, "7.750": event.Policy,
}

// generalCodes are less than a text, more than a reply code.
var generalCodes = map[string]event.Category{
	"3.0": event.SystemError, "4.0": event.NetworkError, "5.0": event.ProtocolError, "6.0": event.ContentRejected, "7.0": event.Policy, "7.1": event.Policy, "7.9": event.Policy, // 7.9 is used for policies far more than for weak passwords
}

func specificCategory(status string) event.Category {
	if len(status) < 5 {
		return ""
	}
	code := status[2:]
	if strings.HasPrefix(code, "7.60") || strings.HasPrefix(code, "7.61") || strings.HasPrefix(code, "7.62") || strings.HasPrefix(code, "7.63") || strings.HasPrefix(code, "7.64") && len(code) == 5 {
		return event.Blocklisted // 5.7.606 to 5.7.649, "banned sending IP"
	}
	return specificCodes[code]
}

func generalCategory(status string) event.Category {
	if len(status) < 5 {
		return ""
	}
	return generalCodes[status[2:]]
}

// replyCategories are for reply codes without any other evidence.
var replyCategories = map[int]event.Category{
	421: event.NetworkError, 426: event.NetworkError, 441: event.NetworkError, 442: event.NetworkError, 446: event.NetworkError, 447: event.GaveUp,
	451: event.SystemError, 452: event.SystemError, 454: event.ProtocolError, 455: event.ProtocolError, 431: event.SystemError, 422: event.MailboxFull, 432: event.SystemError,
	500: event.ProtocolError, 501: event.ProtocolError, 502: event.ProtocolError, 503: event.ProtocolError, 504: event.ProtocolError, 555: event.ProtocolError,
	552: event.MailboxFull, 530: event.AuthenticationFailure, 535: event.AuthenticationFailure, 538: event.AuthenticationFailure,
	553: event.InvalidRecipient, 571: event.Policy, 572: event.RelayDenied,
}

// tellingReplies are reply codes that mean one thing.
var tellingReplies = map[int]event.Category{
	510: event.InvalidRecipient, 511: event.InvalidRecipient, 512: event.InvalidDomain, 521: event.InvalidDomain, 556: event.InvalidDomain, // RFC 7504
	522: event.MailboxFull, 523: event.MessageTooLarge, 525: event.InactiveMailbox, 541: event.SpamContent, 542: event.InvalidRecipient, 551: event.InvalidRecipient,
}
