package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"aftersend/bounce"
	"aftersend/bounce/score"
)

// bounced is the line that `aftersend bounce` prints for one file.
type bounced struct {
	File string `json:"file"`
	score.Label
	Error *string `json:"error,omitempty"` // the file could not be read
}

func newBounceCommand() *cobra.Command {
	var labels bool
	cmd := &cobra.Command{
		Use:   "bounce FILE...",
		Short: "Show what bounce mails say, one line of JSON per file",
		Long: `Reads mails (RFC 5322, any line ends) and prints one line of JSON for each:
whether it is a bounce, a delay notice, a complaint, an automatic reply or none
of these, for which recipients, why, and which message it is about.
With --score it compares each mail x.eml with the label x.json beside it and
prints how much was right instead. Nothing is stored or sent.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			if labels {
				return scoreMails(cmd.OutOrStdout(), files)
			}
			return readMails(cmd.OutOrStdout(), files)
		},
	}
	cmd.Flags().BoolVar(&labels, "score", false, "compare with the labels beside the mails, print figures by family")
	return cmd
}

func readMails(out io.Writer, files []string) error {
	w := bufio.NewWriterSize(out, 1<<16)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	failed := 0
	for _, file := range files {
		l := bounced{File: file}
		mail, err := readMail(file)
		if err != nil {
			failed++
			reason := err.Error()
			l.Error = &reason
		}
		l.Label = score.Of(bounce.Read(mail))
		if err := encoder.Encode(l); err != nil {
			return fmt.Errorf("print what %s says: %w", file, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print what the mails say: %w", err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files could not be read", failed, len(files))
	}
	return nil
}

// readMail reads as much of a file as is ever looked at, and one byte more, so
// that the report can say that there is more.
func readMail(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mail, err := io.ReadAll(io.LimitReader(f, bounce.MaxSize+1))
	if err != nil {
		return nil, err
	}
	return mail, nil
}

func scoreMails(out io.Writer, files []string) error {
	sheet := score.NewSheet()
	for _, file := range files {
		mail, err := readMail(file)
		if err != nil {
			return err
		}
		labelFile := strings.TrimSuffix(file, filepath.Ext(file)) + ".json"
		raw, err := os.ReadFile(labelFile)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s has no label: %s is missing", file, labelFile)
		} else if err != nil {
			return err
		}
		label, err := score.ReadLabel(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", labelFile, err)
		}
		sheet.Add(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), label, score.Of(bounce.Read(mail)))
	}
	sheet.Print(out)
	return nil
}
