package bounce_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/bounce"
	"aftersend/bounce/score"
)

// corpus is where labelled mails of others may lie: they are not ours to keep
// here. The tests over them are skipped where they do not.
const corpus = "../../shared/corpus/bounces"

type labelled struct {
	name  string
	mail  []byte
	label score.Label
}

func readCorpus(t testing.TB, dir string) []labelled {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	require.NoError(t, err)
	var mails []labelled
	for _, file := range files {
		m := labelled{name: strings.TrimSuffix(filepath.Base(file), ".eml")}
		m.mail, err = os.ReadFile(file)
		require.NoError(t, err)
		raw, err := os.ReadFile(strings.TrimSuffix(file, ".eml") + ".json")
		require.NoError(t, err, "a mail without its label")
		m.label, err = score.ReadLabel(raw)
		require.NoError(t, err, m.name)
		mails = append(mails, m)
	}
	return mails
}

// What must not fall below. docs/bounces.md has the figures and the mails that
// are still read wrong.
var targets = map[string]float64{
	score.Recognised: 99, score.FailedDelayed: 98, score.Recipients: 98, score.Status: 99, score.Category: 95, score.Type: 97,
	score.HardCaught: 95, score.NoFalseHard: 100, score.MessageID: 97, score.Complaints: 100, score.AutoReplies: 100, score.NoFalseNotices: 100,
}

func TestCorpus(t *testing.T) {
	mails := readCorpus(t, corpus)
	if len(mails) == 0 {
		t.Skip("no labelled mails at " + corpus)
	}
	sheet := score.NewSheet()
	for _, m := range mails {
		sheet.Add(m.name, m.label, score.Of(bounce.Read(m.mail)))
	}
	var table strings.Builder
	sheet.Print(&table)
	t.Log("\n" + table.String())
	for figure, target := range targets {
		require.GreaterOrEqual(t, sheet.Total[figure].Percent(), target, figure)
	}
}

// TestCorpusLeavingFamiliesOut estimates how unknown formats fare: each
// family's mails are read without the words that occur in that family only.
func TestCorpusLeavingFamiliesOut(t *testing.T) {
	mails := readCorpus(t, corpus)
	if len(mails) == 0 {
		t.Skip("no labelled mails at " + corpus)
	}
	families := map[string][]labelled{}
	texts := map[string]*strings.Builder{}
	for _, m := range mails {
		if texts[m.label.Family] == nil {
			texts[m.label.Family] = &strings.Builder{}
		}
		families[m.label.Family] = append(families[m.label.Family], m)
		texts[m.label.Family].WriteString(bounce.OwnText(m.mail))
	}
	only := map[string]map[string]bool{}
	for _, word := range bounce.Words() {
		var in []string
		for family, text := range texts {
			if bounce.Occurs(word, text.String()) {
				if in = append(in, family); len(in) > 1 {
					break
				}
			}
		}
		if len(in) == 1 {
			if only[in[0]] == nil {
				only[in[0]] = map[string]bool{}
			}
			only[in[0]][word] = true
		}
	}
	sheet := score.NewSheet()
	for family, list := range families {
		restore := bounce.Forget(only[family])
		for _, m := range list {
			sheet.Add(m.name, m.label, score.Of(bounce.Read(m.mail)))
		}
		restore()
	}
	var table strings.Builder
	sheet.Print(&table)
	t.Log("\n" + table.String())
	require.GreaterOrEqual(t, sheet.Total[score.Recognised].Percent(), 97.0)
	require.GreaterOrEqual(t, sheet.Total[score.Recipients].Percent(), 96.0)
	require.GreaterOrEqual(t, sheet.Total[score.Category].Percent(), 85.0)
	require.GreaterOrEqual(t, sheet.Total[score.NoFalseHard].Percent(), 97.0)
}
