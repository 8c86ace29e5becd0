package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"aftersend/config"
	"aftersend/workflows"
)

// Dial makes a Temporal client that connects when first used, so that a
// process starts whether or not Temporal runs. Credentials are Temporal's own
// variables (TEMPORAL_API_KEY, TEMPORAL_TLS_…) and its configuration file.
func Dial(c config.Temporal, log *slog.Logger) (client.Client, error) {
	o, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, fmt.Errorf("read Temporal's variables: %w", err)
	}
	o.HostPort, o.Namespace = c.Address, c.Namespace
	o.Logger = sdklog.NewStructuredLogger(log.With("component", "temporal"))
	cl, err := client.NewLazyClient(o)
	if err != nil {
		return nil, fmt.Errorf("make Temporal client: %w", err)
	}
	return cl, nil
}

// SearchAttributes are what operators search our workflows by.
var SearchAttributes = map[string]enums.IndexedValueType{
	workflows.AttrESP:         enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	workflows.AttrWebhook:     enums.INDEXED_VALUE_TYPE_KEYWORD,
	workflows.AttrState:       enums.INDEXED_VALUE_TYPE_KEYWORD,
	workflows.AttrPausedSince: enums.INDEXED_VALUE_TYPE_DATETIME,
	workflows.AttrAccount:     enums.INDEXED_VALUE_TYPE_KEYWORD,
}

// MissingSearchAttributes lists those the namespace does not have.
func MissingSearchAttributes(ctx context.Context, c client.Client, namespace string) (map[string]enums.IndexedValueType, error) {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	missing := map[string]enums.IndexedValueType{}
	for name, kind := range SearchAttributes {
		if have.GetCustomAttributes()[name] != kind {
			missing[name] = kind
		}
	}
	return missing, nil
}

// schedules start Maintain workflows: the backstop of the sweep that every
// process does by itself, and the watch, which looks at full hours.
var schedules = []struct {
	id            string
	every, offset time.Duration
	activity      string
}{
	{"aftersend-sweep", time.Minute, 0, workflows.SweepActivity},
	{"aftersend-watch", time.Hour, 10 * time.Minute, workflows.WatchActivity},
}

// engine is the workflow engine as far as this process knows it.
type engine struct {
	*workflows.Client
	namespace string
	log       *slog.Logger

	reachable  atomic.Bool
	attributes atomic.Bool // the namespace has our search attributes
	added      time.Time   // when this process registered them; watch only
}

// StartGroup leaves the search attribute out where the namespace does not have
// it: Temporal would refuse the start.
func (e *engine) StartGroup(ctx context.Context, g workflows.GroupStart) error {
	if !e.attributes.Load() {
		g.ESPs = nil
	}
	return e.Client.StartGroup(ctx, g)
}

// Every how often Temporal is looked at: while it is down, and while it is up.
const (
	lookAgain  = 2 * time.Second
	lookIdle   = 15 * time.Second
	lookWithin = 5 * time.Second
)

// attributesSettle is how long the servers take to know new search attributes:
// they read them once a minute.
const attributesSettle = 90 * time.Second

// watch keeps an eye on Temporal until ctx ends. When it can be reached it sets
// up what we need there, as far as we may.
func (e *engine) watch(ctx context.Context) {
	ready, told := false, false
	for {
		err := e.look(ctx, &ready)
		if ctx.Err() != nil {
			return
		}
		if was := e.reachable.Swap(err == nil); err == nil && (!was || !told) {
			e.log.Info("temporal reached", "namespace", e.namespace)
		} else if err != nil && (was || !told) {
			e.log.Warn("temporal cannot be reached; callbacks are stored and processed later", "error_class", temporalClass(err))
		}
		told = true
		wait := lookIdle
		if err != nil {
			wait = lookAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (e *engine) look(ctx context.Context, ready *bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	if _, err := e.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
	}
	if !*ready {
		*ready = e.setUp(ctx)
	}
	return nil
}

// setUp registers search attributes and schedules. What is not
// allowed here (Temporal Cloud) is said once and done without. It reports
// whether there is anything left to try.
func (e *engine) setUp(ctx context.Context) bool {
	missing, err := MissingSearchAttributes(ctx, e.Temporal, e.namespace)
	if err == nil && len(missing) > 0 {
		_, err = e.Temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: e.namespace, SearchAttributes: missing,
		})
		e.added = time.Now()
	}
	settled := time.Since(e.added) > attributesSettle
	e.attributes.Store(err == nil && settled)
	if err != nil {
		e.log.Warn("search attributes not registered; `aftersend doctor` says how", "error_class", temporalClass(err))
	}
	scheduleErr := e.schedule(ctx)
	if scheduleErr != nil {
		e.log.Warn("schedules not made; every process sweeps all the same, but nobody watches the volume", "error_class", temporalClass(scheduleErr))
	}
	return (err == nil && settled || err != nil && !passing(err)) && !passing(scheduleErr)
}

// schedule makes the schedules that are not there yet.
func (e *engine) schedule(ctx context.Context) error {
	for _, s := range schedules {
		_, err := e.Temporal.ScheduleClient().Create(ctx, client.ScheduleOptions{
			ID:      s.id,
			Spec:    client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: s.every, Offset: s.offset}}},
			Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP,
			Action: &client.ScheduleWorkflowAction{
				ID: s.id, Workflow: workflows.MaintainType, TaskQueue: workflows.MaintenanceQueue,
				Args: []any{workflows.MaintainInput{Activity: s.activity}}, WorkflowExecutionTimeout: 10 * time.Minute,
			},
		})
		if _, there := errors.AsType[*serviceerror.AlreadyExists](err); there || errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// passing reports whether trying again may help.
func passing(err error) bool {
	switch err.(type) {
	case nil, *serviceerror.PermissionDenied, *serviceerror.Unimplemented, *serviceerror.InvalidArgument:
		return false
	}
	return true
}

// temporalClass names an error of the engine without its text, which may hold
// an address.
func temporalClass(err error) string {
	switch err.(type) {
	case *serviceerror.Unavailable:
		return "unavailable"
	case *serviceerror.DeadlineExceeded:
		return "timeout"
	case *serviceerror.NamespaceNotFound:
		return "namespace_not_found"
	case *serviceerror.PermissionDenied:
		return "permission_denied"
	case *serviceerror.NotFound:
		return "not_found"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return "unreachable"
}
