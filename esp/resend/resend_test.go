package resend_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/resend"
)

func TestAdapter(t *testing.T) { esptest.Run(t, resend.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, resend.Adapter{}) }
