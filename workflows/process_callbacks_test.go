package workflows

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"aftersend/activities"
	"aftersend/id"
)

// processing plays the activities on one group and writes down what ran how.
type processing struct {
	group id.ID
	ran   []string
	fail  func(step string, local bool, attempt int32) error
}

func (p *processing) environment(t *testing.T) *testsuite.TestWorkflowEnvironment {
	var s testsuite.WorkflowTestSuite
	env := s.NewTestWorkflowEnvironment()
	env.RegisterWorkflow(ProcessCallbacks)
	for i, step := range processSteps {
		env.RegisterActivityWithOptions(func(ctx context.Context, in activities.GroupInput) (activities.GroupResult, error) {
			require.Equal(t, p.group, in.Group)
			info := activity.GetInfo(ctx)
			how := step.name
			if !info.IsLocalActivity {
				how += " patiently"
			}
			p.ran = append(p.ran, how)
			if p.fail != nil {
				if err := p.fail(step.name, info.IsLocalActivity, info.Attempt); err != nil {
					return activities.GroupResult{}, err
				}
			}
			return activities.GroupResult{Callbacks: 12, Events: i}, nil
		}, activity.RegisterOptions{Name: step.name})
	}
	return env
}

var inOrder = []string{"ParseCallbacks", "CorrelateEvents", "RouteEvents", "WakeWebhooks"}

func TestProcessCallbacks(t *testing.T) {
	p := &processing{group: id.New()}
	for range 2 { // the whole workflow again does no harm: the rows know
		env := p.environment(t)
		p.ran = nil
		env.ExecuteWorkflow(ProcessCallbacks, ProcessCallbacksInput{Group: p.group})
		require.NoError(t, env.GetWorkflowError())
		require.Equal(t, inOrder, p.ran)
		var res activities.GroupResult
		require.NoError(t, env.GetWorkflowResult(&res))
		require.Equal(t, activities.GroupResult{Callbacks: 12, Events: 3}, res, "the counts of the last step")
	}
}

func TestAStepThatFailsRunsPatiently(t *testing.T) {
	p := &processing{group: id.New()}
	p.fail = func(step string, local bool, attempt int32) error {
		if step == CorrelateEventsActivity && (local || attempt < 8) {
			return temporal.NewApplicationError("connection", "connection")
		}
		return nil
	}
	env := p.environment(t)
	started := env.Now()
	env.ExecuteWorkflow(ProcessCallbacks, ProcessCallbacksInput{Group: p.group})
	require.NoError(t, env.GetWorkflowError())
	want := []string{"ParseCallbacks"}
	for range sqlLocal.RetryPolicy.MaximumAttempts {
		want = append(want, "CorrelateEvents")
	}
	for range 8 {
		want = append(want, "CorrelateEvents patiently")
	}
	want = append(want, "RouteEvents", "WakeWebhooks")
	require.Equal(t, want, p.ran)
	require.Greater(t, env.Now().Sub(started), 2*time.Minute, "further and further apart")
}

func TestNoGroupEndsTheWorkflow(t *testing.T) {
	p := &processing{group: id.New()}
	p.fail = func(string, bool, int32) error {
		return temporal.NewNonRetryableApplicationError("no such group", activities.ErrNoGroup, nil)
	}
	env := p.environment(t)
	env.ExecuteWorkflow(ProcessCallbacks, ProcessCallbacksInput{Group: p.group})
	require.Error(t, env.GetWorkflowError())
	require.Equal(t, inOrder[:1], p.ran)
}

func TestSummariesSayWhatIsKnown(t *testing.T) {
	r := activities.GroupResult{Callbacks: 50, Events: 212, Repeats: 1, Webhooks: 3}
	var all []string
	for _, step := range processSteps {
		all = append(all, step.summary(r))
	}
	require.Equal(t, []string{"read and understand", "212 events from 50 callbacks", "212 new events, 1 repeat", "3 webhooks"}, all)
}

func TestMaintainSweeps(t *testing.T) {
	var s testsuite.WorkflowTestSuite
	env := s.NewTestWorkflowEnvironment()
	tries := 0
	env.RegisterActivityWithOptions(func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}, activity.RegisterOptions{Name: SweepActivity})
	env.ExecuteWorkflow(Maintain, MaintainInput{})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, 3, tries)
}

// What a workflow is told and says is ids and counts: nothing personal can be in them.
func TestInputsHoldIdsOnly(t *testing.T) {
	p, err := converter.GetDefaultDataConverter().ToPayload(ProcessCallbacksInput{Group: id.ID{1}})
	require.NoError(t, err)
	require.JSONEq(t, `{"group":"01000000-0000-0000-0000-000000000000"}`, string(p.Data))
}
