package smtp2go_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/smtp2go"
)

func TestAdapter(t *testing.T) { esptest.Run(t, smtp2go.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, smtp2go.Adapter{}) }
