// Package webhook thinks about outgoing webhooks: which events one gets, how
// a batch is written in each dialect, how it is signed, and what an answer
// means. It does no I/O and takes time as an argument.
package webhook
