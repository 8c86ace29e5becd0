package pglocal

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are PostgreSQL's run-time settings by name, as in postgresql.conf.
type Settings map[string]string

// common holds for every private server: quiet, in UTC, English messages (this package reads some), no JIT, which costs more
// than it gains on statements of milliseconds.
var common = Settings{
	"timezone":            "UTC",
	"log_timezone":        "UTC",
	"lc_messages":         "C",
	"log_min_messages":    "warning",
	"log_line_prefix":     "%m [%p] %q%d ",
	"logging_collector":   "off",
	"jit":                 "off",
	"password_encryption": "scram-sha-256",
}

// Production is what a README for production would recommend for a small machine of its own: every commit is on disk before it is
// answered. Temporal keeps some 60 connections beside those of the product.
var Production = Settings{
	"fsync":              "on",
	"synchronous_commit": "on",
	"full_page_writes":   "on",
	"max_connections":    "200",

	"shared_buffers":       "256MB",
	"effective_cache_size": "1GB",
	"work_mem":             "16MB",
	"maintenance_work_mem": "128MB",
	"random_page_cost":     "1.1", // flash, not spinning disks

	// Far apart checkpoints: the first write to a page after one puts the whole page into the WAL.
	"wal_compression":              "on", // lz4 where this build has it
	"wal_buffers":                  "16MB",
	"min_wal_size":                 "256MB",
	"max_wal_size":                 "4GB",
	"checkpoint_timeout":           "15min",
	"checkpoint_completion_target": "0.9",

	// The tables only grow at their end and lose whole partitions; what is updated is small and hot.
	"autovacuum":                      "on",
	"autovacuum_naptime":              "20s",
	"autovacuum_vacuum_scale_factor":  "0.05",
	"autovacuum_analyze_scale_factor": "0.05",
	"autovacuum_vacuum_cost_limit":    "1000",
	"log_lock_waits":                  "on",
	"log_autovacuum_min_duration":     "10s",
}

// Test is for clusters that nobody misses: nothing is flushed to disk, and a crash of the machine destroys them.
var Test = Settings{
	"fsync":              "off",
	"synchronous_commit": "off",
	"full_page_writes":   "off",
	"max_connections":    "300",
	"shared_buffers":     "64MB",
	"wal_level":          "minimal",
	"max_wal_senders":    "0",
	"max_wal_size":       "1GB",
	"checkpoint_timeout": "1h",
	"autovacuum_naptime": "10s",
}

// with returns s overlaid by others, the last winning.
func (s Settings) with(others ...Settings) Settings {
	all := maps.Clone(s)
	for _, o := range others {
		maps.Copy(all, o)
	}
	return all
}

// file is s as a postgresql.conf.
func (s Settings) file() string {
	var b strings.Builder
	b.WriteString("# Written anew at every start; changes here are lost.\n")
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(s[name], "'", "''"))
	}
	return b.String()
}

// hba lets in whoever knows the password, over loopback and the socket only.
const hba = `# Written anew at every start; changes here are lost.
local  all  all                scram-sha-256
host   all  all  127.0.0.1/32  scram-sha-256
host   all  all  ::1/128       scram-sha-256
`

// hasLZ4 asks the server whether it was built with lz4, which compresses full pages at a fraction of pglz's CPU.
// Asking for one setting (-C) is allowed to root, too.
func hasLZ4(b Binaries, pgdata string) bool {
	return b.Major >= 15 &&
		exec.Command(filepath.Join(b.Dir, "postgres"), "-C", "wal_compression", "-D", pgdata, "-c", "wal_compression=lz4").Run() == nil
}

// configure writes the cluster's configuration files.
func configure(b Binaries, pgdata string, s Settings) error {
	for name, text := range map[string]string{"postgresql.conf": s.file(), "pg_hba.conf": hba, "postgresql.auto.conf": ""} {
		// Written in place, so that they keep the owner initdb gave them.
		if err := os.WriteFile(filepath.Join(pgdata, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure the cluster: %w", err)
		}
	}
	if s["wal_compression"] != "on" || !hasLZ4(b, pgdata) {
		return nil
	}
	lz4 := s.with(Settings{"wal_compression": "lz4", "default_toast_compression": "lz4"})
	return os.WriteFile(filepath.Join(pgdata, "postgresql.conf"), []byte(lz4.file()), 0o600)
}
