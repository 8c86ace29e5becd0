// Package packaging checks what no engine runs in the tests: the compose file
// and the image's recipe.
package packaging

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"aftersend/config"
)

const root = "../.."

func load(t *testing.T) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithEnv([]string{"AFTERSEND_SEAL__KEYS=1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}))
	require.NoError(t, err)
	p, err := o.LoadProject(context.Background())
	require.NoError(t, err)
	return p
}

func TestComposeHasEveryPart(t *testing.T) {
	p := load(t)
	names := p.ServiceNames()
	slices.Sort(names)
	require.Equal(t, []string{"api", "mailpit", "migrate", "postgres", "temporal", "temporal-namespace",
		"temporal-schema", "temporal-ui", "worker"}, names)
	for name, s := range p.Services {
		require.NotContains(t, s.Image, "auto-setup", name)
		require.NotContains(t, s.Image, ":latest", name)
	}
	require.Equal(t, "16", *p.Services["temporal"].Environment["NUM_HISTORY_SHARDS"])
}

func TestComposeStartsInOrder(t *testing.T) {
	p := load(t)
	done, healthy := types.ServiceConditionCompletedSuccessfully, types.ServiceConditionHealthy
	for service, needs := range map[string]map[string]string{
		"temporal-schema":    {"postgres": healthy},
		"temporal":           {"temporal-schema": done},
		"temporal-namespace": {"temporal": healthy},
		"migrate":            {"postgres": healthy},
		"api":                {"migrate": done}, // and not Temporal: callbacks are taken without it
		"worker":             {"migrate": done, "temporal-namespace": done},
	} {
		got := map[string]string{}
		for on, d := range p.Services[service].DependsOn {
			got[on] = d.Condition
		}
		require.Equal(t, needs, got, service)
	}
}

func TestComposeMountsFilesThatExist(t *testing.T) {
	for name, s := range load(t).Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				_, err := os.Stat(v.Source)
				require.NoError(t, err, "%s mounts %s", name, v.Target)
			}
		}
	}
}

func TestComposeSetsOnlyKnownSettings(t *testing.T) {
	for _, role := range []string{"migrate", "api", "worker"} {
		var environ []string
		for name, value := range load(t).Services[role].Environment {
			environ = append(environ, name+"="+*value)
		}
		_, err := config.Load("", environ)
		require.NoError(t, err, role)
	}
}

func TestSearchAttributesAreThoseOfTheCode(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, "deploy/temporal/setup-namespace.sh"))
	require.NoError(t, err)
	names, err := os.ReadFile(filepath.Join(root, "workflows/names.go"))
	require.NoError(t, err)
	for line := range strings.SplitSeq(string(names), "\n") {
		if _, rest, ok := strings.Cut(line, `= "Aftersend`); ok {
			attr := "Aftersend" + rest[:strings.IndexByte(rest, '"')]
			require.Contains(t, string(script), "ensure_attribute "+attr+" ", "the set-up script misses a search attribute")
		}
	}
}

func TestImageRunsAsNobodyWithoutTheDevModule(t *testing.T) {
	recipe, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	for _, want := range []string{"GOWORK=off", "USER 65532", "FROM scratch", "./cmd/aftersend"} {
		require.Contains(t, string(recipe), want)
	}
	ignored, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	require.Contains(t, strings.Fields(string(ignored)), "dev")
}
