package workflows

import (
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
)

// SendNotice sends one notice to its recipients, patiently. The notice is a
// row that says whether it is sent, so running this again does no harm. After a
// day it fails; the notice is then shown as unsent and the sweep tries on.
func SendNotice(ctx workflow.Context, in SendNoticeInput) error {
	ctx = workflow.WithActivityOptions(ctx, sendMail)
	return workflow.ExecuteActivity(ctx, SendMailActivity, activities.NoticeInput{Notice: in.Notice}).Get(ctx, nil)
}
