package unisendergo_test

import (
	"testing"

	"aftersend/esp/esptest"
	"aftersend/esp/unisendergo"
)

func TestAdapter(t *testing.T) { esptest.Run(t, unisendergo.Adapter{}, esptest.SignatureInBody) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, unisendergo.Adapter{}) }
