package mumaraone_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/mumaraone"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mumaraone.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mumaraone.Adapter{}) }
