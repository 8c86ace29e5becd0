package brevo_test

import (
	"testing"

	"aftersend/esp/brevo"
	"aftersend/esp/esptest"
)

func TestAdapter(t *testing.T) { esptest.Run(t, brevo.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, brevo.Adapter{}) }
