package stack

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"aftersend/app"
	"aftersend/config"
	"aftersend/crash"
	"aftersend/dev/internal/outbox"
)

// outboxPath is where the API shows the outbox.
const outboxPath = "/outbox"

// runProduct is aftersend itself, configured by the environment. Mails go to an outbox beside it, unless a mail server is set.
func runProduct(ctx context.Context, sp spec, ready func()) error {
	if err := crash.Arm(os.Getenv("AFTERSEND_CRASH")); err != nil {
		return err
	}
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		return err
	}
	box, err := outbox.Open(filepath.Join(sp.DataDir, "outbox"))
	if err != nil {
		return err
	}
	if cfg.Mail.SMTPAddr == "" {
		addr, stop, err := box.Listen()
		if err != nil {
			return err
		}
		defer stop()
		cfg.Mail.SMTPAddr, cfg.Mail.TLS = addr, "none"
	}
	roles := app.Roles{API: sp.Role != Worker, Worker: sp.Role != API}
	return app.Run(ctx, cfg, roles, app.Options{
		Extra: map[string]http.Handler{outboxPath: box.Handler(outboxPath)},
		Ready: func(string) { ready() },
		Log:   app.NewLogger(os.Stderr, cfg.Log),
	})
}
