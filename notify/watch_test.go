package notify_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/notify"
)

func TestNoticesOfTheWatch(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	subject, text := notify.Quiet{Source: "src_1", Name: "shop\r\nBcc: x", ESP: "mandrill", Silent: true, Window: time.Hour, Until: until,
		Usual: 12_345, PublicURL: "https://in.example.com/"}.Mail()
	require.Equal(t, `Source "shop  Bcc: x" has fallen silent`, subject)
	require.Contains(t, text, "In the last hour the source \"shop  Bcc: x\" brought 0 events. At these hours 12,345 events are usual.")
	require.Contains(t, text, "https://in.example.com/sources/src_1")

	subject, text = notify.Quiet{Name: "shop", Window: 6 * time.Hour, Events: 1, Usual: 100}.Mail()
	require.Equal(t, `Source "shop" tells far less than usual`, subject)
	require.Contains(t, text, "In the last 6 hours")

	subject, text = notify.Failing{Domain: "example.com", Window: 3 * time.Hour, Until: until, Bad: 60, Total: 80, Usual: 0.021}.Mail()
	require.Equal(t, "Messages to example.com fail far more than usual", subject)
	require.Contains(t, text, "In the last 3 hours 60 of 80 messages to example.com failed or were put off (75 %). 2 % is usual.")
}
