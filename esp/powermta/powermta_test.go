package powermta_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/powermta"
)

func TestAdapter(t *testing.T) { esptest.Run(t, powermta.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, powermta.Adapter{}) }
