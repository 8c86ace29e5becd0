package mailersend_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/mailersend"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mailersend.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mailersend.Adapter{}) }
