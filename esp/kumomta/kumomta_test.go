package kumomta_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/kumomta"
)

func TestAdapter(t *testing.T) { esptest.Run(t, kumomta.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, kumomta.Adapter{}) }
