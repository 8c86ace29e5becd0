package everlytic_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/everlytic"
)

func TestAdapter(t *testing.T) { esptest.Run(t, everlytic.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, everlytic.Adapter{}) }
