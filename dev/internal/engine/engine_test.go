package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPostgresURLsInTheServersTerms(t *testing.T) {
	c, err := sqlConfig("postgres://me:p%40ss%2Fword@db.example.com/aftersend_temporal?sslmode=require", 5)
	require.NoError(t, err)
	require.Equal(t, "postgres12_pgx", c.PluginName)
	require.Equal(t, "db.example.com:5432", c.ConnectAddr)
	require.Equal(t, "me", c.User)
	require.Equal(t, "p@ss/word", c.Password, "the server escapes it itself")
	require.Equal(t, "aftersend_temporal", c.DatabaseName)
	require.Equal(t, map[string]string{"sslmode": "require"}, c.ConnectAttributes)

	_, err = sqlConfig("not a url", 5)
	require.Error(t, err)
}

func TestTheServersPartsDoNotShareAPort(t *testing.T) {
	cfg, hosts, err := serverConfig(Options{Database: "postgres://h/a", Visibility: "postgres://h/b", Port: 7233})
	require.NoError(t, err)
	seen := map[int]bool{}
	for name, service := range cfg.Services {
		require.False(t, seen[service.RPC.GRPCPort], name)
		seen[service.RPC.GRPCPort] = true
		require.Equal(t, "127.0.0.1", service.RPC.BindOnIP, "nothing but loopback")
	}
	require.Len(t, seen, 4)
	require.Len(t, hosts, 4)
	require.Equal(t, "127.0.0.1:7233", hosts["frontend"].Self)
}
