package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/esp/capture"
	"aftersend/event"
)

// parsed is the line that `aftersend parse` prints for one file.
type parsed struct {
	File   string        `json:"file"`
	ESP    string        `json:"esp"`
	Events []event.Event `json:"events"`
	Error  *string       `json:"error"` // null when everything was understood
	Auth   string        `json:"auth"`  // valid, invalid, or none: not signed, or no key to check with

	failed bool // the file could not be read at all
}

func newParseCommand() *cobra.Command {
	var name, keysFile string
	cmd := &cobra.Command{
		Use:   "parse [--esp NAME] [--keys FILE] FILE...",
		Short: "Show what captured callbacks say, one line of JSON per file",
		Long: `Reads captured requests, *.request.json or raw HTTP in *.http, and prints one
line of JSON for each: the events it reports in their native form, what could
not be understood, and whether it is authentic under the keys of --keys.
The ESP is the one the file's folder is named after, unless --esp names it.
Nothing is stored or sent.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var keys *capture.KeyFile
			if keysFile != "" {
				var err error
				if keys, err = capture.ReadKeys(keysFile); err != nil {
					return err
				}
			}
			if name != "" {
				if _, ok := all.ByName(name); !ok {
					return fmt.Errorf("there is no ESP %q; known are %s", name, strings.Join(espNames(), ", "))
				}
			}
			ctx := cmd.Context()
			if ctx == nil { // executed without one
				ctx = context.Background()
			}
			return parseFiles(ctx, cmd.OutOrStdout(), files, name, keys)
		},
	}
	cmd.Flags().StringVar(&name, "esp", "", "the ESP that posted the requests (default: the folder's name)")
	cmd.Flags().StringVar(&keysFile, "keys", "", "JSON file with the ESPs' verification keys and the public base URL")
	return cmd
}

// parseFiles prints the lines in the order of the files; a window of them is
// parsed at a time, in parallel. The error counts the files that could not be
// read.
func parseFiles(ctx context.Context, out io.Writer, files []string, name string, keys *capture.KeyFile) error {
	const window = 1024
	w := bufio.NewWriterSize(out, 1<<16)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	failed := 0
	for part := range slices.Chunk(files, window) {
		lines := make([]parsed, len(part))
		var work errgroup.Group
		work.SetLimit(runtime.GOMAXPROCS(0))
		for i, file := range part {
			work.Go(func() error {
				lines[i] = parseFile(ctx, file, name, keys)
				return ctx.Err()
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
		for _, line := range lines {
			if line.failed {
				failed++
			}
			if err := encoder.Encode(line); err != nil {
				return fmt.Errorf("write the result: %w", err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files could not be read", failed, len(files))
	}
	return nil
}

func parseFile(ctx context.Context, file, name string, keys *capture.KeyFile) parsed {
	line := parsed{File: file, Events: []event.Event{}, Auth: "none"}
	adapter, ok := adapterFor(file, name)
	if !ok {
		return line.fail("no ESP is named by the folder; use --esp")
	}
	line.ESP = adapter.Describe().Name
	baseURL := capture.DefaultBaseURL
	if keys != nil {
		baseURL = keys.BaseURL
	}
	c, err := capture.ReadFile(file, baseURL)
	if err != nil {
		return line.fail(err.Error())
	}
	result, err := adapter.Parse(c.Request)
	if result.Events != nil {
		line.Events = result.Events
	}
	if said := complaint(result, err); said != "" {
		line.Error = &said
	}
	line.Auth = authenticity(ctx, adapter, c.Request, keys)
	return line
}

func (p parsed) fail(why string) parsed {
	p.Error, p.failed = &why, true
	return p
}

// adapterFor goes by the name given, else by the nearest folder named after an
// ESP.
func adapterFor(file, name string) (esp.Adapter, bool) {
	if name != "" {
		return all.ByName(name)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, false
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if a, ok := all.ByName(filepath.Base(dir)); ok {
			return a, true
		}
	}
	return nil, false
}

func complaint(r esp.Result, err error) string {
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for i, p := range r.Problems {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "record %d: %s", p.Record, p.Reason)
	}
	return b.String()
}

// authenticity checks without a clock, so that old captures stay valid.
func authenticity(ctx context.Context, a esp.Adapter, req esp.Request, keys *capture.KeyFile) string {
	verifier, ok := a.(esp.Verifier)
	if !ok {
		return "none"
	}
	v, ok := keys.Verification(a)
	if !ok || !a.Describe().Verifiable(v.Secrets) {
		return "none"
	}
	err := verifier.Verify(ctx, req, v)
	switch {
	case err == nil:
		return "valid"
	case errors.Is(err, esp.ErrUnsigned), errors.Is(err, esp.ErrUnverified):
		return "none"
	}
	return "invalid"
}

func espNames() []string {
	var names []string
	for _, a := range all.Adapters() {
		names = append(names, a.Describe().Name)
	}
	return names
}
