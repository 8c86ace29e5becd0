package bounce

import (
	"strings"
	"sync"

	"aftersend/event"
)

// OwnText is what a mail says itself, prepared as the rules see it.
func OwnText(mail []byte) string {
	r := &reader{}
	n := r.collect(r.walk(mail))
	return normalText(n.header.text("subject")+"\n"+join(n.lines)) + normalText(n.status)
}

// Words are all patterns of the rules and word lists.
func Words() []string {
	var all []string
	for _, r := range rules {
		for _, p := range r.patterns {
			all = append(all, strings.Join(p, " * "))
		}
	}
	return append(append(append(append(all, noticeSubjects...), openings...), stillTrying...), givingUp...)
}

// Occurs tells whether a text has a pattern of Words.
func Occurs(word, text string) bool {
	p := newPattern(word)
	for rest := text; ; {
		at := wordIndex(rest, p[0])
		if at < 0 {
			return false
		}
		if p[1:].follows(rest[at+len(p[0]):]) {
			return true
		}
		rest = rest[at+1:]
	}
}

// Forget takes words away until restore is called. Not for parallel tests.
func Forget(words map[string]bool) (restore func()) {
	kept := [][]string{noticeSubjects, openings, stillTrying, givingUp}
	keptRules := rules
	restore = func() {
		noticeSubjects, openings, stillTrying, givingUp, rules = kept[0], kept[1], kept[2], kept[3], keptRules
		ruleIndex = sync.OnceValue(indexRules)
	}
	without := func(list []string) []string {
		var rest []string
		for _, w := range list {
			if !words[w] {
				rest = append(rest, w)
			}
		}
		return rest
	}
	noticeSubjects, openings, stillTrying, givingUp = without(kept[0]), without(kept[1]), without(kept[2]), without(kept[3])
	rules = nil
	ruleIndex = sync.OnceValue(indexRules)
	for _, r := range keptRules {
		shorter := rule{category: r.category, example: r.example}
		for _, p := range r.patterns {
			if !words[strings.Join(p, " * ")] {
				shorter.patterns = append(shorter.patterns, p)
			}
		}
		rules = append(rules, shorter)
	}
	return restore
}

// RuleExamples are the rules' own texts with the category each should have.
func RuleExamples() map[string]event.Category {
	all := map[string]event.Category{}
	for _, r := range rules {
		all[r.example] = r.category
	}
	return all
}

// CategoryOf is what the rules make of a text.
func CategoryOf(text string) event.Category { return categoryOfText(text) }
