package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run runs the command and returns its lines.
func runParse(t *testing.T, args ...string) ([]map[string]any, error) {
	t.Helper()
	cmd := newParseCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	var lines []map[string]any
	for _, text := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines, err
}

func TestParseCommand(t *testing.T) {
	const dir = "../../esp/mandrill/testdata/"
	lines, err := runParse(t, "--keys", dir+"_keys.json",
		dir+"query_and_further_parameters.request.json", dir+"other_key.request.json", dir+"probe_head.http",
		dir+"no_parameter.request.json", dir+"broken_record_between_good_ones.request.json")
	require.NoError(t, err)
	require.Len(t, lines, 5, "one line per file, in their order")
	for _, line := range lines {
		require.Equal(t, "mandrill", line["esp"], "the folder names the ESP")
		for _, name := range []string{"file", "events", "error", "auth"} {
			require.Contains(t, line, name)
		}
	}
	first := lines[0]["events"].([]any)[0].(map[string]any)
	require.Equal(t, "sent", first["type"])
	require.Equal(t, "u1@example.com", first["recipient"])
	require.NotContains(t, first, "id")
	require.Nil(t, lines[0]["error"])
	require.Equal(t, []any{"valid", "invalid", "none", "none", "valid"}, []any{lines[0]["auth"], lines[1]["auth"], lines[2]["auth"], lines[3]["auth"], lines[4]["auth"]})
	require.Equal(t, []any{}, lines[2]["events"])
	require.Contains(t, lines[3]["error"], "mandrill_events")
	require.Len(t, lines[4]["events"], 2, "the good records of a damaged batch")
	require.Contains(t, lines[4]["error"], "record 1")

	lines, err = runParse(t, dir+"other_key.request.json")
	require.NoError(t, err)
	require.Equal(t, "none", lines[0]["auth"], "no keys, no verdict")
}

func TestParseCommandNamesTheESP(t *testing.T) {
	data, err := os.ReadFile("../../esp/mailtrap/testdata/lines.request.json")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "some.request.json")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	lines, err := runParse(t, "--esp", "Mailtrap", file)
	require.NoError(t, err)
	require.Equal(t, "mailtrap", lines[0]["esp"])
	require.Len(t, lines[0]["events"], 2)

	lines, err = runParse(t, file, file+".missing")
	require.ErrorContains(t, err, "2 of 2 files")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0]["error"], "--esp")

	_, err = runParse(t, "--esp", "nobody", file)
	require.ErrorContains(t, err, "known are")
	_, err = runParse(t)
	require.Error(t, err, "no files")
	_, err = runParse(t, "--keys", file+".missing", file)
	require.ErrorContains(t, err, "keys file")
}

func TestParseCommandManyFiles(t *testing.T) {
	files := make([]string, 3000)
	for i := range files {
		files[i] = "../../esp/mailtrap/testdata/every_event.request.json"
	}
	files[1500] = "../../esp/smtpeter/testdata/open.request.json"
	lines, err := runParse(t, files...)
	require.NoError(t, err)
	require.Len(t, lines, len(files))
	require.Equal(t, "smtpeter", lines[1500]["esp"])
}
