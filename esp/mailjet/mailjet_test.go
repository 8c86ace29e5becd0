package mailjet_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/mailjet"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mailjet.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mailjet.Adapter{}) }
