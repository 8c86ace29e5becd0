package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"aftersend/id"
	"aftersend/intake"
	"aftersend/migrations"
	"aftersend/seal"
	"aftersend/store"
)

// databaseEnv tells the commit ceiling its database; arguments of processes are for all to see.
const databaseEnv = "BENCH_DATABASE"

// serveGin is the upper ceiling: what HTTP costs. It reads the body and answers 200; nothing is kept.
func serveGin(ctx context.Context, p *pipe, _ []string) error {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/callbacks/:esp/:token", func(c *gin.Context) {
		if _, err := io.Copy(io.Discard, c.Request.Body); err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		c.JSON(http.StatusOK, gin.H{"status": "accepted"})
	})
	return serveUntil(ctx, p, engine)
}

// serveCommit is the lower ceiling: what keeping costs. The rows are those of the product, written by its flusher, but nothing is
// verified, and nothing happens to them afterwards.
func serveCommit(ctx context.Context, p *pipe, _ []string) error {
	box, err := seal.New(seal.NewKey(1))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, os.Getenv(databaseEnv), box, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := migrations.Up(ctx, st.DB()); err != nil {
		return err
	}
	flusher := intake.New(st, intake.Options{Host: "bench"}, slog.Default())
	flushing, stop := context.WithCancel(context.Background())
	drained := make(chan struct{})
	go func() { defer close(drained); flusher.Run(flushing) }()
	defer func() { stop(); <-drained }()

	account, source := id.New(), id.New()
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/callbacks/:esp/:token", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		ip, _ := netip.ParseAddrPort(c.Request.RemoteAddr)
		stored, err := flusher.Submit(c.Request.Context(), store.Callback{
			AccountID: account, SourceID: source, ESP: c.Param("esp"), ReceivedAt: time.Now().UTC(), RemoteIP: ip.Addr(), Verified: true,
			Method: c.Request.Method, Path: []byte("/callbacks/" + c.Param("esp") + "/" + store.Masked), Query: []byte(c.Request.URL.RawQuery),
			Headers: store.EncodeHeaders(c.Request.Header), Body: body,
		})
		if err != nil {
			_ = c.Error(fmt.Errorf("store: %w", err))
			c.Status(http.StatusServiceUnavailable)
			return
		}
		c.JSON(http.StatusOK, gin.H{"status": "accepted", "id": id.Callback.Format(stored)})
	})
	return serveUntil(ctx, p, engine)
}
