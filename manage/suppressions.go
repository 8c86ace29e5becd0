package manage

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"aftersend/id"
	"aftersend/store"
)

// SuppressionInput is an address that should not be mailed.
type SuppressionInput struct {
	Recipient string `json:"recipient" maxLength:"320" doc:"The address. Case does not matter."`
	Reason    string `json:"reason,omitempty" enum:"unsubscribed,complained,bounced,manual" default:"manual" doc:"Why. A resubscription lifts unsubscribed ones, nothing else lifts the others by itself."`
}

// AddSuppression puts an address on the list and returns what is there then:
// one that holds already stays as it is.
func (m *Manager) AddSuppression(ctx context.Context, sc Scope, in SuppressionInput) (store.SuppressionRow, error) {
	var wrong Invalid
	recipient, ok := address(in.Recipient)
	wrong.check(ok, "recipient", wantAddress)
	if in.Reason == "" {
		in.Reason = store.Manual
	}
	wrong.check(slices.Contains(store.Reasons, in.Reason), "reason", wantReason)
	if err := wrong.err(); err != nil {
		return store.SuppressionRow{}, err
	}
	added := store.NewSuppression{Recipient: recipient, Reason: in.Reason, Since: m.Now().UTC().Truncate(time.Microsecond)}
	_, err := m.Store.AddSuppressions(ctx, sc.Account, []store.NewSuppression{added}, &store.Change{
		By: sc.By, Action: "suppression.added", ResourceKind: "suppression", ResourceName: recipient,
		Changes: map[string]store.FromTo{"reason": {To: in.Reason}},
	})
	if err != nil {
		return store.SuppressionRow{}, dataError(err)
	}
	rows, err := m.Store.Suppressions(ctx, sc.Account, store.SuppressionFilter{Recipient: recipient, Reason: in.Reason}, store.Page{Limit: 1})
	if err == nil && len(rows) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.SuppressionRow{}, err
	}
	return rows[0], nil
}

// LiftSuppression takes an address off the list again, for one reason.
func (m *Manager) LiftSuppression(ctx context.Context, sc Scope, suppression id.ID) error {
	return m.Store.LiftSuppression(ctx, sc.Account, suppression, m.Now(), store.Change{
		By: sc.By, Action: "suppression.lifted", ResourceKind: "suppression", ResourceID: suppression,
	})
}

// MaxCheck is how many addresses CheckSuppressions takes.
const MaxCheck = 1000

// Checked is what CheckSuppressions found out about one address, as it was given.
type Checked struct {
	Recipient    string
	Suppressions []store.SuppressionRow // that hold
}

// CheckSuppressions looks addresses up, in the order given. What is no address
// is suppressed by nothing.
func (m *Manager) CheckSuppressions(ctx context.Context, sc Scope, recipients []string) ([]Checked, error) {
	if len(recipients) > MaxCheck {
		return nil, invalid("recipients", fmt.Sprintf("want at most %d", MaxCheck))
	}
	at := map[string][]int{}
	all := make([]Checked, len(recipients))
	var normal []string
	for i, given := range recipients {
		all[i].Recipient = given
		recipient, ok := address(given)
		if !ok {
			continue
		}
		if at[recipient] == nil {
			normal = append(normal, recipient)
		}
		at[recipient] = append(at[recipient], i)
	}
	if len(normal) == 0 {
		return all, nil
	}
	rows, err := m.Store.SuppressedAmong(ctx, sc.Account, normal)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		for _, i := range at[r.Recipient] {
			all[i].Suppressions = append(all[i].Suppressions, r)
		}
	}
	return all, nil
}

const (
	wantAddress = "want an e-mail address, without a name or brackets"
	wantReason  = "want unsubscribed, complained, bounced or manual"
)

// address brings an address into the form in which they are compared. It only
// refuses what cannot be one: ESPs accept much that RFC 5321 does not.
func address(text string) (string, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	at := strings.LastIndexByte(text, '@')
	odd := func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(`<>(),;:\"`, r)
	}
	return text, 0 < at && at < len(text)-1 && len(text) <= 320 && utf8.ValidString(text) && !strings.ContainsFunc(text, odd)
}

// --- CSV ---

// Import is what became of a CSV file, line by line.
type Import struct {
	Lines     int           // with an address or an error; header and empty lines do not count
	Added     int           // on the list now and not before
	Unchanged int           // on the list already, or lifted later than the line says
	Failed    int           // lines with an error
	Errors    []ImportError // of the first lines with one, at most MaxImportErrors
}

// ImportError is what is wrong with one line.
type ImportError struct {
	Line    int    // of the file, from 1
	Message string // what is wanted; never repeats the line
}

// MaxImportErrors is how many lines with an error an Import names.
const MaxImportErrors = 1000

// importChunk is how many addresses are added in one transaction.
const importChunk = 1000

// ErrBrokenFile means that a file could not be read to its end; what was read
// is on the list, and importing it again does no harm.
var ErrBrokenFile = errors.New("the file could not be read to its end")

// ImportSuppressions reads a CSV file and puts its addresses on the list. With
// a header (recipient, email or address; reason; since) columns may stand in
// any order and others are skipped; without, the first column is the address.
// What ExportSuppressions writes can be read; lines it marks as lifted are
// skipped. Good lines are added whatever is wrong with others.
func (m *Manager) ImportSuppressions(ctx context.Context, sc Scope, file io.Reader) (Import, error) {
	im := importing{Manager: m, scope: sc, now: m.Now().UTC().Truncate(time.Microsecond), seen: map[string]int{}}
	err := im.read(ctx, file)
	if err == nil || errors.Is(err, ErrBrokenFile) {
		err = errors.Join(err, im.flush(ctx))
	}
	if im.Added == 0 {
		return im.Import, err
	}
	// What was done is told of even if the client has gone.
	logErr := m.Store.LogActivity(context.WithoutCancel(ctx), sc.Account, store.Change{
		By: sc.By, Action: "suppressions.imported", ResourceKind: "suppression",
		Changes: map[string]store.FromTo{"added": {To: im.Added}, "lines": {To: im.Lines}},
	})
	return im.Import, errors.Join(err, logErr)
}

type importing struct {
	*Manager
	Import
	scope   Scope
	now     time.Time
	columns columns
	rows    []store.NewSuppression
	seen    map[string]int // of rows, by reason and recipient
}

// columns are the positions of what is known in a record; -1: not there.
type columns struct{ recipient, reason, since, lifted int }

// read takes the file line by line, each as CSV of its own, so that a quote
// that is never closed spoils one line and not the rest of the file.
func (im *importing) read(ctx context.Context, file io.Reader) error {
	lines := bufio.NewScanner(file)
	comma, first := ',', true
	for line := 1; lines.Scan(); line++ {
		text := lines.Text()
		if first {
			text = strings.TrimPrefix(text, "\ufeff") // as Excel writes it
			comma = separatorOf(text)
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		r := csv.NewReader(strings.NewReader(text))
		r.Comma, r.TrimLeadingSpace = comma, true
		record, err := r.Read()
		if err != nil {
			im.fail(line, "want CSV on one line")
			continue
		}
		if first {
			first = false
			var header bool
			if im.columns, header = headerOf(record); header {
				continue
			}
		}
		im.record(line, record)
		if len(im.rows) == importChunk {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrBrokenFile, err)
	}
	return nil
}

// separatorOf finds what separates the columns of a file by its first line:
// spreadsheets write semicolons where the comma is a decimal sign.
func separatorOf(line string) rune {
	for _, c := range ",;\t" {
		if strings.ContainsRune(line, c) {
			return c
		}
	}
	return ','
}

func headerOf(record []string) (columns, bool) {
	c := columns{recipient: -1, reason: -1, since: -1, lifted: -1}
	for i, name := range record {
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "recipient", "email", "e-mail", "address", "email_address", "email address":
			c.recipient = i
		case "reason":
			c.reason = i
		case "since":
			c.since = i
		case "lifted_at":
			c.lifted = i
		}
	}
	if c.recipient >= 0 {
		return c, true
	}
	return columns{recipient: 0, reason: -1, since: -1, lifted: -1}, false
}

// record takes one line of the file.
func (im *importing) record(line int, record []string) {
	field := func(i int) string {
		if i < 0 || i >= len(record) {
			return ""
		}
		return strings.TrimSpace(unguard(record[i]))
	}
	row := store.NewSuppression{Reason: store.Manual, Since: im.now}
	given := field(im.columns.recipient)
	if field(im.columns.lifted) != "" {
		return
	}
	var ok bool
	if row.Recipient, ok = address(given); !ok {
		im.fail(line, wantAddress)
		return
	}
	if reason := strings.ToLower(field(im.columns.reason)); reason != "" {
		if row.Reason = reason; !slices.Contains(store.Reasons, reason) {
			im.fail(line, wantReason)
			return
		}
	}
	if since := field(im.columns.since); since != "" {
		at, err := time.Parse(time.RFC3339, since)
		if err != nil {
			at, err = time.Parse(time.DateOnly, since)
		}
		if err != nil || at.Before(time.Unix(1, 0)) || at.After(im.now) {
			im.fail(line, "want since as 2006-01-02 or 2006-01-02T15:04:05Z, not to come")
			return
		}
		row.Since = at.UTC().Truncate(time.Microsecond)
	}
	im.Lines++
	key := row.Reason + " " + row.Recipient
	if i, again := im.seen[key]; again {
		if row.Since.After(im.rows[i].Since) {
			im.rows[i].Since = row.Since
		}
		im.Unchanged++
		return
	}
	im.seen[key] = len(im.rows)
	im.rows = append(im.rows, row)
}

func (im *importing) fail(line int, message string) {
	im.Lines++
	im.Failed++
	if len(im.Errors) < MaxImportErrors {
		im.Errors = append(im.Errors, ImportError{line, message})
	}
}

func (im *importing) flush(ctx context.Context) error {
	if len(im.rows) == 0 {
		return nil
	}
	added, err := im.Store.AddSuppressions(ctx, im.scope.Account, im.rows, nil)
	if err != nil {
		return dataError(err)
	}
	im.Added += added
	im.Unchanged += len(im.rows) - added
	im.rows = im.rows[:0]
	clear(im.seen)
	return nil
}

// exportPage is how many rows of an export are read at a time.
const exportPage = 5000

// ExportSuppressions writes a list as CSV, newest first. What a spreadsheet
// would take for a formula gets an apostrophe before it, which
// ImportSuppressions takes away again.
func (m *Manager) ExportSuppressions(ctx context.Context, sc Scope, f store.SuppressionFilter, to io.Writer) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"recipient", "reason", "since", "event", "created_at", "lifted_at"}) // Flush tells
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	for p := (store.Page{Limit: exportPage}); ; {
		rows, err := m.Store.Suppressions(ctx, sc.Account, f, p)
		if err != nil {
			return err
		}
		for _, r := range rows {
			lifted := ""
			if !r.Active {
				lifted = stamp(*r.LiftedAt)
			}
			_ = w.Write([]string{guard(r.Recipient), r.Reason, stamp(r.Since), id.Event.Format(r.EventID.ID), stamp(r.CreatedAt), lifted})
			p.After = r.ID
		}
		w.Flush()
		if err := w.Error(); err != nil || len(rows) < p.Limit {
			return err
		}
	}
}

// formula are the characters that make a spreadsheet take a cell for a formula
// (OWASP, CSV injection). The apostrophe is among them so that guarding can be
// undone.
const formula = "=+-@\t\r'"

func guard(cell string) string {
	if cell != "" && strings.ContainsRune(formula, rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func unguard(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && strings.ContainsRune(formula, rune(cell[1])) {
		return cell[1:]
	}
	return cell
}
