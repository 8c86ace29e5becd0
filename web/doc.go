// Package web is the room for the operators' pages, rendered on the server and
// mounted beside the API. Its pages read through package store and act through
// package manage, as the API does; lists come from SQL, never from workflow
// queries. Nothing is in it yet: operators have the API, and Temporal's own
// pages for workflows.
package web
