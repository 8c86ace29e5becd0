package mandrill_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/esptest"
	"aftersend/esp/mandrill"
)

func TestAdapter(t *testing.T) { esptest.Run(t, mandrill.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mandrill.Adapter{}) }

func TestProbesAreAnswered(t *testing.T) {
	for method, probe := range map[string]bool{http.MethodHead: true, http.MethodGet: true, http.MethodPost: false} {
		reply, answered := mandrill.Adapter{}.Answer(esp.Request{Method: method}, nil)
		require.Equal(t, probe, answered, method)
		if probe {
			require.Equal(t, http.StatusOK, reply.Status)
		}
	}
}
