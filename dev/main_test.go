package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/stack"
)

func TestFlags(t *testing.T) {
	o, err := parse(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, stack.Options{Addr: "127.0.0.1:8080", DataDir: "./.aftersend", TemporalPort: 7233, UIPort: 8233}, o)

	o, err = parse([]string{"--fast", "--empty", "--data", "/d", "--database-url", "postgres://h/n"}, io.Discard)
	require.NoError(t, err)
	require.True(t, o.Fast)
	require.Equal(t, "/d", o.DataDir)
	require.Equal(t, "postgres://h/n", o.DatabaseURL)

	for _, wrong := range [][]string{{"--fats"}, {"serve"}} {
		_, err = parse(wrong, io.Discard)
		require.Error(t, err)
	}
}

func TestATakenAddressSaysWhatToDo(t *testing.T) {
	said := explain(&stack.Taken{Addr: "127.0.0.1:8080", By: "process 12 (nginx)"}, stack.Options{Addr: "127.0.0.1:8080"})
	require.Equal(t, "127.0.0.1:8080 is taken by process 12 (nginx): stop it, or choose another address, for example --addr 127.0.0.1:8081", said)
}

func TestTheBannerSaysWhereThingsAre(t *testing.T) {
	var out bytes.Buffer
	s := &stack.Stack{Addresses: stack.Addresses{
		API: "http://127.0.0.1:8080", TemporalUI: "http://127.0.0.1:8233/namespaces/aftersend",
		DatabaseURL: "postgres://aftersend@127.0.0.1:5433/aftersend", Moved: []string{"Temporal is on port 1"},
	}}
	banner(&out, s, stack.Options{}, 0)
	for _, part := range []string{"http://127.0.0.1:8080/callbacks/{esp}/dev", "http://127.0.0.1:8080/outbox", "http://127.0.0.1:8233/namespaces/aftersend",
		"postgres://aftersend@127.0.0.1:5433/aftersend", "Bearer dev", "Temporal is on port 1"} {
		require.Contains(t, out.String(), part)
	}

	out.Reset()
	s.DatabaseURL = "postgres://me:hunter2@db.example.com/aftersend"
	banner(&out, s, stack.Options{DatabaseURL: s.DatabaseURL}, 0)
	require.NotContains(t, out.String(), "hunter2", "the password of someone else's server is not shown")
}

func TestLinesOfSeveralPartsDoNotMix(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out}
	_, _ = c.log(stack.Serve).Write([]byte("one\n"))
	_, _ = c.log(stack.Temporal).Write([]byte("two\n"))
	require.Equal(t, "serve    | one\ntemporal | two\n", out.String())
}
