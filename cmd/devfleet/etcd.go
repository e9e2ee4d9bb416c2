// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// etcdEndpoint is a socket in the member's folder, which is the process's working directory: no port to collide on,
// nobody else on the machine can reach it, and the short relative name fits the kernel's limit however deep the folder lies.
const etcdEndpoint = "unix://etcd.sock"

// startEtcd runs etcd on the member's data and returns when it serves.
func startEtcd(ctx context.Context, f folder) (<-chan error, error) {
	// A fresh etcd reserves two segments; the default of 64 MB each is more than a development cluster ever fills.
	wal.SegmentSizeBytes = 8 << 20
	cfg := embed.NewConfig()
	cfg.Name = "default"
	cfg.Dir = f.path("etcd")
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Host: "etcd.sock"}}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: "etcd-peer.sock"}}
	// The machine may lose power, the process may not lose data: without fsync kill -9 still leaves everything in the page cache.
	cfg.UnsafeNoFsync = true
	cfg.SnapshotCount = 5000
	cfg.SnapshotCatchUpEntries = 1000
	cfg.EnableGRPCGateway = false
	// Slow answers are the normal case when several clusters start on two cores.
	cfg.WarningApplyDuration = 2 * time.Second
	cfg.WarningUnaryRequestDuration = 2 * time.Second
	cfg.LogLevel = "warn"
	cfg.LogOutputs = []string{"stderr"}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server.Err(), nil
	case err := <-server.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
