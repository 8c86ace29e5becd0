package engine

import (
	"io"
	"os"

	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// mutable is the server's logger: one line an entry, without the stack traces that the server's own adds to every error. While the
// server starts and stops it keeps back all but what ends the process, since its parts complain of each other's absence then.
type mutable struct {
	log.Logger
	now  zap.AtomicLevel
	full zapcore.Level
}

func newLogger(to io.Writer, verbose bool) *mutable {
	if to == nil {
		to = os.Stderr
	}
	m := &mutable{now: zap.NewAtomicLevelAt(zap.FatalLevel), full: zap.ErrorLevel}
	if verbose {
		m.full = zap.WarnLevel
		m.speak()
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.StacktraceKey = zapcore.OmitKey, zapcore.OmitKey
	enc.EncodeLevel = zapcore.CapitalLevelEncoder
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.Lock(zapcore.AddSync(to)), m.now)
	m.Logger = log.NewZapLogger(zap.New(core))
	return m
}

func (m *mutable) speak() { m.now.SetLevel(m.full) }
func (m *mutable) mute()  { m.now.SetLevel(zap.FatalLevel) }
