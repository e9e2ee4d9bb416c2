// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// etcd are embedded members of one cluster, over tcp on loopback.
type etcd struct {
	folder  string
	watch   *watch
	members []*etcdMember
	cluster string
}

type etcdMember struct {
	name          string
	peers, client url.URL
	folder        string
	server        *embed.Etcd
	local         *clientv3.Client
	stop          context.CancelFunc
}

var (
	_ replicas  = (*etcd)(nil)
	_ divisible = (*etcd)(nil)
)

func startEtcd(ctx context.Context, folder string, n int, w *watch) (*etcd, error) {
	e := &etcd{folder: folder, watch: w}
	for range n {
		if err := e.add(); err != nil {
			return nil, err
		}
	}
	started := make(chan error, n)
	for i := range e.members {
		go func() { started <- e.start(ctx, i, embed.ClusterStateFlagNew) }()
	}
	var errs []error
	for range e.members {
		errs = append(errs, <-started)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// add makes a member that does not run yet.
func (e *etcd) add() error {
	m := &etcdMember{name: fmt.Sprintf("m%d", len(e.members))}
	m.folder = filepath.Join(e.folder, m.name)
	for _, address := range []*url.URL{&m.peers, &m.client} {
		port, err := freePort()
		if err != nil {
			return err
		}
		*address = url.URL{Scheme: "http", Host: port}
	}
	e.members = append(e.members, m)
	var all []string
	for _, m := range e.members {
		all = append(all, m.name+"="+m.peers.String())
	}
	e.cluster = strings.Join(all, ",")
	return nil
}

// freePort is free at this moment; etcd has to know its members' ports before it listens.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (e *etcd) start(ctx context.Context, i int, state string) error {
	m := e.members[i]
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.name, m.folder
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{m.peers}, []url.URL{m.peers}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{m.client}, []url.URL{m.client}
	cfg.InitialCluster, cfg.ClusterState = e.cluster, state
	cfg.EnableGRPCGateway = false
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(e.folder, m.name+".log")}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	m.server = server
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-time.After(time.Minute):
		return fmt.Errorf("etcd: member %d is not ready after a minute", i)
	}
	m.local = v3client.New(server.Server)
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	events := m.local.Watch(watching, "", clientv3.WithPrefix())
	go func() {
		for answer := range events {
			for _, event := range answer.Events {
				e.watch.heard(i, event.Kv.Value)
			}
		}
	}()
	return nil
}

func (e *etcd) put(ctx context.Context, replica int, key string, value []byte) error {
	_, err := e.members[replica].local.Put(ctx, key, string(value))
	return err
}

// leader is the replica that leads now.
func (e *etcd) leader() int {
	for i, m := range e.members {
		if m.server.Server.MemberID() == m.server.Server.Leader() {
			return i
		}
	}
	return 0
}

// sent by all members of this process: etcd counts for the process.
func (e *etcd) sent() uint64 {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return 0
	}
	var sum float64
	for _, family := range families {
		if family.GetName() == "etcd_network_peer_sent_bytes_total" {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return uint64(sum)
}

func (e *etcd) divide(side func(int) int) {
	for i, a := range e.members {
		for j, b := range e.members {
			if i != j && side(i) != side(j) {
				a.server.Server.CutPeer(b.server.Server.MemberID())
			}
		}
	}
}

func (e *etcd) heal() {
	for i, a := range e.members {
		for j, b := range e.members {
			if i != j {
				a.server.Server.MendPeer(b.server.Server.MemberID())
			}
		}
	}
}

func (e *etcd) close() error {
	var errs []error
	for _, m := range e.members {
		if m.local != nil {
			m.stop()
			if err := m.local.Close(); !errors.Is(err, context.Canceled) {
				errs = append(errs, err)
			}
		}
		if m.server != nil {
			// Close waits for a hand-over of the lead that the last members cannot make.
			m.server.Server.HardStop()
			m.server.Close()
		}
	}
	return errors.Join(errs...)
}
