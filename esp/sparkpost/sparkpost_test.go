package sparkpost_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/sparkpost"
)

func TestAdapter(t *testing.T) { esptest.Run(t, sparkpost.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, sparkpost.Adapter{}) }
