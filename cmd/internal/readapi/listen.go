// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
)

// Bounds of a connection. An answer is at most a few megabytes, a question a few hundred bytes.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10 // a bearer token of a large identity provider fits
	drainTimeout      = 5 * time.Second
)

// Listener puts a Server on the network.
type Listener struct {
	// Addr to listen at, such as 127.0.0.1:0.
	Addr   string
	Server *Server
	// TLS with the serving certificate: [Certificates].Config.
	TLS *tls.Config
	// Ready, if set, is told the address once connections are accepted.
	Ready func(net.Addr)
}

// Run serves until the context ends; watches end with it. It fails where it cannot listen.
func (l *Listener) Run(ctx context.Context) error {
	var lc net.ListenConfig
	inner, err := lc.Listen(ctx, "tcp", l.Addr)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	server := &http.Server{
		Handler:           l.Server,
		TLSConfig:         l.TLS.Clone(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// Strangers' broken handshakes are noise: debug level.
		ErrorLog:    slog.NewLogLogger(logr.ToSlogHandler(l.Server.Log), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(inner, "", "") }()
	if l.Ready != nil {
		l.Ready(inner.Addr())
	}
	select {
	case err = <-served:
	case <-ctx.Done():
		err = errors.Join(drain(server), <-served)
	}
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("read endpoint: %w", err)
}

// drain lets answers finish, and cuts what does not.
func drain(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return server.Close()
	}
	return nil
}
