package mandrill_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/mandrill"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mandrill.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mandrill.Adapter{}) }
