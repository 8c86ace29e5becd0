package smtpeter_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/smtpeter"
)

func TestAdapter(t *testing.T) { esptest.Run(t, smtpeter.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, smtpeter.Adapter{}) }
