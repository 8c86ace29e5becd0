package engine

import (
	"fmt"
	"log/slog"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	v12 "go.temporal.io/server/schema/postgresql/v12"
	"go.temporal.io/server/tools/common/schema"
	"go.temporal.io/server/tools/sql"
)

// schemaVersion names a schema that comes with the server, and its newest version.
type schemaVersion struct{ name, version string }

var (
	mainSchema       = schemaVersion{"postgresql/v12/temporal", v12.Version}
	visibilitySchema = schemaVersion{"postgresql/v12/visibility", v12.VisibilityVersion}
)

// quiet is for code that reports as errors what is part of the plan.
var quiet = slog.New(slog.DiscardHandler)

// applySchema makes or upgrades the schema of a database.
func applySchema(cfg *config.SQL, want schemaVersion) error {
	// A copy without the pool's size: the tool opens what it needs, once.
	tool := *cfg
	tool.MaxConns, tool.MaxIdleConns = 1, 1
	logger := log.NewNoopLogger()
	conn, err := sql.NewConnection(&tool, logger)
	if err != nil {
		return fmt.Errorf("connect to Temporal's database %s: %w", cfg.DatabaseName, err)
	}
	defer conn.Close()
	have, err := conn.ReadSchemaVersion()
	if err == nil && have == want.version {
		return nil
	}
	if err != nil { // no table of versions yet
		if err := schema.NewSetupSchemaTask(conn, &schema.SetupConfig{InitialVersion: "0.0"}, logger).Run(); err != nil {
			return fmt.Errorf("set up Temporal's database %s: %w", cfg.DatabaseName, err)
		}
	}
	if err := schema.NewUpdateSchemaTask(conn, &schema.UpdateConfig{SchemaName: want.name}, logger).Run(); err != nil {
		return fmt.Errorf("bring Temporal's database %s from version %q to %s: %w", cfg.DatabaseName, have, want.version, err)
	}
	return nil
}
