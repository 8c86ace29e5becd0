package workflows_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"aftersend/workflows"
)

// Running workflows outlive a deploy: what new code does with an old history
// must be what the old code did. The histories are recorded from a real server:
//
//	go test ./dev/e2e -record
func TestRecordedHistoriesReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "histories", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no recorded histories; record some with `go test ./dev/e2e -record`")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DisableRegistrationAliasing: true})
			require.NoError(t, err)
			for name, f := range map[string]any{
				workflows.ProcessCallbacksType: workflows.ProcessCallbacks,
				workflows.WebhookType:          workflows.Webhook(true), // recorded in the history, whichever it was
				workflows.SendNoticeType:       workflows.SendNotice,
				workflows.MaintainType:         workflows.Maintain,
				workflows.TrackDeferralsType:   workflows.TrackDeferrals,
			} {
				r.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: name})
			}
			require.NoError(t, r.ReplayWorkflowHistoryFromJSONFile(nil, file))
		})
	}
}
