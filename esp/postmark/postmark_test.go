package postmark_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/postmark"
)

func TestAdapter(t *testing.T) { esptest.Run(t, postmark.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, postmark.Adapter{}) }
