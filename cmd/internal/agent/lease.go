// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// errLeaseLost: the API server was away for too long, or another agent took over. Nothing is done for the
// member until the lease is held again.
var errLeaseLost = errors.New("the lease was lost: another agent may act for this member now")

// lease of one cluster for one agent.
type lease struct {
	client              kubernetes.Interface
	namespace, identity string
	log                 logr.Logger
}

// hold the lease while work runs. work's context ends when the lease is lost.
func (l *lease) hold(ctx context.Context, work func(context.Context) error) error {
	const duration, renew, retry = 15 * time.Second, 10 * time.Second, 2 * time.Second
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	var began atomic.Bool
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: l.namespace, Name: "flotilla-agent"},
			Client:     l.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.identity},
		},
		LeaseDuration: duration, RenewDeadline: renew, RetryPeriod: retry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				began.Store(true)
				done <- work(ctx)
				cancel()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(holder string) {
				if holder != l.identity {
					l.log.Info("another agent acts for this member; waiting for its lease", "holder", holder)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	elector.Run(leading)
	if !began.Load() {
		return nil // ended before it ever held the lease
	}
	if err = <-done; err == nil && ctx.Err() == nil {
		return errLeaseLost
	}
	return err
}
