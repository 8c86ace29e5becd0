package manage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"aftersend/manage"
	"aftersend/store"
)

func (f *fixture) suppressed(t *testing.T, recipients ...string) []string {
	t.Helper()
	checked, err := f.CheckSuppressions(t.Context(), f.scope, recipients)
	require.NoError(t, err)
	require.Len(t, checked, len(recipients))
	var all []string
	for i, c := range checked {
		require.Equal(t, recipients[i], c.Recipient)
		for _, s := range c.Suppressions {
			all = append(all, s.Recipient+" "+s.Reason)
		}
	}
	return all
}

func TestSuppressionsByHand(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: " Jo@Example.com "})
	require.NoError(t, err)
	require.Equal(t, "jo@example.com", first.Recipient)
	require.Equal(t, store.Manual, first.Reason)
	again, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: "jo@example.com"})
	require.NoError(t, err)
	require.Equal(t, first, again, "what holds stays as it is")
	_, err = f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: "jo@example.com", Reason: "complained"})
	require.NoError(t, err)
	require.Equal(t, []string{"jo@example.com complained", "jo@example.com manual"}, f.suppressed(t, "JO@example.com", "not an address", "no@example.com"))

	require.NoError(t, f.LiftSuppression(t.Context(), f.scope, first.ID))
	require.ErrorIs(t, f.LiftSuppression(t.Context(), f.scope, first.ID), store.ErrNotFound, "it is lifted")
	require.Equal(t, []string{"jo@example.com complained"}, f.suppressed(t, "jo@example.com"))
	back, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: "jo@example.com"})
	require.NoError(t, err)
	require.True(t, back.Active)
	require.Equal(t, first.ID, back.ID)
	require.Equal(t, []string{"account.created", "suppression.added", "suppression.added", "suppression.lifted", "suppression.added"}, f.actions(t))

	for _, bad := range []string{"", "jo", "@example.com", "jo@", "Jo <jo@example.com>", "a@b\x00", strings.Repeat("x", 330) + "@example.com"} {
		_, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: bad})
		requireInvalid(t, err, "recipient")
	}
	_, err = f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: "a@b", Reason: "boredom"})
	requireInvalid(t, err, "reason")
	_, err = f.CheckSuppressions(t.Context(), f.scope, make([]string, manage.MaxCheck+1))
	requireInvalid(t, err, "recipients")

	other, err := f.store.CreateAccount(t.Context(), "other", f.scope.By)
	require.NoError(t, err)
	elsewhere := manage.System(other)
	checked, err := f.CheckSuppressions(t.Context(), elsewhere, []string{"jo@example.com"})
	require.NoError(t, err)
	require.Empty(t, checked[0].Suppressions, "another account's")
	require.ErrorIs(t, f.LiftSuppression(t.Context(), elsewhere, first.ID), store.ErrNotFound)
}

func TestImportSuppressions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		want manage.Import
		list []string
	}{
		"addresses alone": {"a@x.com\r\nB@x.com\n\nb@X.com\n", manage.Import{Lines: 3, Added: 2, Unchanged: 1}, []string{"a@x.com manual", "b@x.com manual"}},
		"a header in any order": {"\ufeffName,Reason,E-Mail,Since\nA,complained,a@x.com,2020-01-02\nB,,b@x.com,2020-01-02T03:04:05+01:00\n",
			manage.Import{Lines: 2, Added: 2}, []string{"a@x.com complained", "b@x.com manual"}},
		"lines with errors": {"email;reason;since\nnobody;;\na@x.com;tired;\nb@x.com;;soon\nc@x.com;;2999-01-01\n\"e@x.com\nd@x.com\n",
			manage.Import{Lines: 6, Added: 1, Failed: 5, Errors: []manage.ImportError{
				{Line: 2, Message: "want an e-mail address, without a name or brackets"},
				{Line: 3, Message: "want unsubscribed, complained, bounced or manual"},
				{Line: 4, Message: "want since as 2006-01-02 or 2006-01-02T15:04:05Z, not to come"},
				{Line: 5, Message: "want since as 2006-01-02 or 2006-01-02T15:04:05Z, not to come"},
				{Line: 6, Message: "want CSV on one line"},
			}}, []string{"d@x.com manual"}},
		"nothing":             {"", manage.Import{}, nil},
		"only a header":       {"recipient,reason\n", manage.Import{}, nil},
		"lifted ones and all": {"recipient,lifted_at\na@x.com,2020-01-01T00:00:00Z\nb@x.com,\n", manage.Import{Lines: 1, Added: 1}, []string{"b@x.com manual"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			got, err := f.ImportSuppressions(t.Context(), f.scope, strings.NewReader(c.file))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.Equal(t, c.list, f.suppressed(t, "a@x.com", "b@x.com", "c@x.com", "d@x.com"))
			if c.want.Added > 0 {
				require.Equal(t, "suppressions.imported", f.actions(t)[1])
			}
		})
	}
}

func TestAnExportCanBeImportedAndIsNoFormula(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	odd := []string{"=cmd|'/c'!a1@x.com", "+1@x.com", "-1@x.com", "@x@x.com", "'quoted@x.com", "'=both@x.com", "plain@x.com"}
	for _, a := range odd {
		_, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: a, Reason: "complained"})
		require.NoError(t, err)
	}
	lifted, err := f.AddSuppression(t.Context(), f.scope, manage.SuppressionInput{Recipient: "lifted@x.com"})
	require.NoError(t, err)
	require.NoError(t, f.LiftSuppression(t.Context(), f.scope, lifted.ID))

	var file bytes.Buffer
	require.NoError(t, f.ExportSuppressions(t.Context(), f.scope, store.SuppressionFilter{}, &file))
	lines := strings.Split(strings.TrimSpace(file.String()), "\n")
	require.Len(t, lines, 1+len(odd)+1)
	for _, line := range lines {
		require.NotContains(t, "=+-@", line[:1])
	}

	other := newFixture(t)
	got, err := other.ImportSuppressions(t.Context(), other.scope, &file)
	require.NoError(t, err)
	require.Equal(t, manage.Import{Lines: len(odd), Added: len(odd)}, got)
	var want []string
	for _, a := range odd {
		want = append(want, a+" complained")
	}
	require.Equal(t, want, other.suppressed(t, append(odd, "lifted@x.com")...))
}

func TestALargeImportStreams(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const n = 100_000
	r, w := io.Pipe()
	go func() {
		for i := range n {
			fmt.Fprintf(w, "user%d@example.com\n", i)
		}
		_ = w.CloseWithError(io.EOF)
	}()
	got, err := f.ImportSuppressions(t.Context(), f.scope, r)
	require.NoError(t, err)
	require.Equal(t, manage.Import{Lines: n, Added: n}, got)
	var file bytes.Buffer
	require.NoError(t, f.ExportSuppressions(t.Context(), f.scope, store.SuppressionFilter{}, &file))
	require.Equal(t, n+1, bytes.Count(file.Bytes(), []byte("\n")), "every page of it")
}

func TestABrokenFileIsImportedAsFarAsItGoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	broken := io.MultiReader(strings.NewReader("a@x.com\nb@x.com\n"), iotest.ErrReader(errors.New("the line went dead")))
	got, err := f.ImportSuppressions(context.WithoutCancel(t.Context()), f.scope, broken)
	require.ErrorIs(t, err, manage.ErrBrokenFile)
	require.Equal(t, 2, got.Added)
	require.Equal(t, []string{"a@x.com manual", "b@x.com manual"}, f.suppressed(t, "a@x.com", "b@x.com"))
}
