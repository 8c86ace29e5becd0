package elasticemail_test

import (
	"testing"

	"aftersend/esp/elasticemail"
	"aftersend/esp/esptest"
)

func TestAdapter(t *testing.T) { esptest.Run(t, elasticemail.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, elasticemail.Adapter{}) }
