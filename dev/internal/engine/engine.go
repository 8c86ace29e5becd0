// Package engine runs the Temporal server and its web UI inside this process, with Postgres for persistence. It is the only
// package that knows the server's code; everything else speaks to it as to any Temporal.
//
// The server ends the process when it cannot go on (a port that is taken, a database that is gone), so it is to be run in a child
// process of its own.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"golang.org/x/sync/errgroup"

	"aftersend/app"
)

// Options says where the server listens and where it keeps its data. All of it listens on loopback only.
type Options struct {
	Database   string // URL of its database, which exists, empty at first
	Visibility string // URL of its second database, for lists and searches
	Namespace  string
	Port       int       // gRPC of the frontend
	UIPort     int       // 0 = no web UI
	Verbose    bool      // log more than errors
	Log        io.Writer // where to
}

// Shards is the number of history shards, fixed for the life of a database: right for 2 to 8 cores.
const Shards = 16

// dynamic are the settings that differ from the server's defaults. One partition a task queue, since four on one machine only
// make tasks wait for a poller elsewhere; a cache that fits into a development machine.
var dynamic = dynamicconfig.StaticClient{
	dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
	dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	dynamicconfig.HistoryCacheHostLevelMaxSize.Key():        4000,
}

// Run starts the server, calls ready once the namespace can be used, and runs until ctx ends. It makes or upgrades the schema
// first. Ports must be free: the server exits the process over one that is not.
func Run(ctx context.Context, o Options, ready func()) error {
	logger := newLogger(o.Log, o.Verbose)
	cfg, hosts, err := serverConfig(o)
	if err != nil {
		return err
	}
	if err := prepare(cfg, o.Namespace); err != nil {
		return err
	}
	authorizer, err := authorization.GetAuthorizerFromConfig(&cfg.Global.Authorization)
	if err != nil {
		return fmt.Errorf("set up Temporal's authorizer: %w", err)
	}
	claims, err := authorization.GetClaimMapperFromConfig(&cfg.Global.Authorization, logger)
	if err != nil {
		return fmt.Errorf("set up Temporal's claim mapper: %w", err)
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts), // no gossip, and no ports for it
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(dynamic),
	)
	if err != nil {
		return fmt.Errorf("set up Temporal: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start Temporal: %w", err)
	}
	if o.UIPort != 0 {
		ui := webUI(o)
		go func() { _ = ui.Start() }() // returns when stopped, exits the process when it cannot listen
		defer ui.Stop()
	}
	if err := usable(ctx, o); err != nil {
		return errors.Join(err, server.Stop())
	}
	logger.speak()
	ready()
	<-ctx.Done()
	logger.mute()
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stop Temporal: %w", err)
	}
	return nil
}

func webUI(o Options) *uiserver.Server {
	return uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		Host:                loopback,
		Port:                o.UIPort,
		TemporalGRPCAddress: hostPort(o.Port),
		DefaultNamespace:    o.Namespace,
		EnableUI:            true,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain HTTP on loopback
		HideLogs:            true,
		DisableNewsFetch:    true, // nothing is fetched from the network
	}))
}

const loopback = "127.0.0.1"

func hostPort(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// usable waits until the namespace answers, and registers search attributes that a namespace of an older version lacks.
func usable(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{HostPort: hostPort(o.Port), Namespace: o.Namespace, Logger: sdklog.NewStructuredLogger(quiet)})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: o.Namespace})
		if err == nil {
			return addMissing(ctx, c, o.Namespace, have.CustomAttributes)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Temporal's namespace %s: %w", o.Namespace, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func addMissing(ctx context.Context, c client.Client, namespace string, have map[string]enums.IndexedValueType) error {
	missing := map[string]enums.IndexedValueType{}
	for name, kind := range app.SearchAttributes {
		if _, ok := have[name]; !ok {
			missing[name] = kind
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	if err != nil {
		return fmt.Errorf("register search attributes with Temporal: %w", err)
	}
	// Every service reads namespaces anew every 2 s (system.namespaceCacheRefreshInterval), and refuses unknown attributes until it has.
	time.Sleep(4 * time.Second)
	return nil
}

// serverConfig is what `temporal server start-dev` sets up, with Postgres in place of SQLite.
func serverConfig(o Options) (*config.Config, map[primitives.ServiceName]static.Hosts, error) {
	main, err := sqlConfig(o.Database, 12)
	if err != nil {
		return nil, nil, err
	}
	visibility, err := sqlConfig(o.Visibility, 6)
	if err != nil {
		return nil, nil, err
	}
	cfg := &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     "main",
			VisibilityStore:  "visibility",
			NumHistoryShards: Shards,
			DataStores: map[string]config.DataStore{
				"main":       {SQL: main},
				"visibility": {SQL: visibility},
			},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: hostPort(o.Port)},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
		PublicClient: config.PublicClient{HostPort: hostPort(o.Port)}, // without it the worker service panics
		Services:     map[string]config.Service{},
	}
	ports, err := internalPorts(o.Port)
	if err != nil {
		return nil, nil, err
	}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for service, port := range ports {
		cfg.Services[string(service)] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: loopback}}
		hosts[service] = static.SingleLocalHost(hostPort(port))
	}
	return cfg, hosts, nil
}

const clusterName = "active"

// internalPorts gives each of the server's services a port: the frontend the one asked for, the others free ones.
func internalPorts(frontend int) (map[primitives.ServiceName]int, error) {
	ports := map[primitives.ServiceName]int{primitives.FrontendService: frontend}
	for _, service := range []primitives.ServiceName{primitives.HistoryService, primitives.MatchingService, primitives.WorkerService} {
		l, err := net.Listen("tcp", hostPort(0))
		if err != nil {
			return nil, fmt.Errorf("find a port for Temporal's %s service: %w", service, err)
		}
		defer l.Close() // after all are found, so that they differ
		ports[service] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// sqlConfig turns a URL into the server's terms. Each of its four services has a pool of its own.
func sqlConfig(database string, maxConns int) (*config.SQL, error) {
	u, err := url.Parse(database)
	if err != nil || u.Host == "" {
		return nil, errors.New("a Postgres URL for Temporal: want postgres://user:password@host/name?sslmode=…")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "5432")
	}
	password, _ := u.User.Password()
	attributes := map[string]string{}
	for name, values := range u.Query() {
		attributes[name] = values[0]
	}
	return &config.SQL{
		PluginName:        postgresql.PluginNamePGX,
		ConnectProtocol:   "tcp",
		ConnectAddr:       host,
		User:              url.QueryEscape(u.User.Username()),
		Password:          password,
		DatabaseName:      strings.TrimPrefix(u.Path, "/"),
		ConnectAttributes: attributes,
		MaxConns:          maxConns,
		MaxIdleConns:      maxConns,
		MaxConnLifetime:   time.Hour,
	}, nil
}

// prepare brings both databases to the schema of this server, and puts the namespace in. That goes before the start, straight into
// the table: a namespace made through the API is known to the server's services seconds later only.
func prepare(cfg *config.Config, namespace string) error {
	stores := cfg.Persistence.DataStores
	var both errgroup.Group
	both.Go(func() error { return applySchema(stores["main"].SQL, mainSchema) })
	both.Go(func() error { return applySchema(stores["visibility"].SQL, visibilitySchema) })
	if err := both.Wait(); err != nil {
		return err
	}
	ns, err := sqlite.NewNamespaceConfig(clusterName, namespace, false, app.SearchAttributes) // retention 24 h; nothing of it is SQLite's
	if err != nil {
		return fmt.Errorf("describe Temporal's namespace: %w", err)
	}
	if err := sqlite.CreateNamespaces(stores["main"].SQL, ns); err != nil {
		return fmt.Errorf("make Temporal's namespace: %w", err)
	}
	return nil
}
