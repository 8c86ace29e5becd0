package mailtrap_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/mailtrap"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mailtrap.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mailtrap.Adapter{}) }
