// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// startLimit is how long a member may take to get ready before it gives up; on two cores eight at once need about 16 s.
const startLimit = 3 * time.Minute

// memberOptions say which cluster this process is.
type memberOptions struct {
	name, dir string
	// child: end as soon as standard input does, which is when the parent is gone.
	child bool
}

// runMember is one whole cluster in this process until it is told to stop or a part of it fails.
//
// Stopping is ending the process: a cluster that survives kill -9 needs no other way to stop.
func runMember(ctx context.Context, o memberOptions, stdout io.Writer) error {
	began := time.Now()
	f, err := newFolder(o.dir, o.name)
	if err != nil {
		return err
	}
	if err := f.create(); err != nil {
		return err
	}
	lock, err := f.claim()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	l, err := prepare(f)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		// Measured on two cores: a fifth less memory than the default for no slower start.
		debug.SetGCPercent(50)
	}
	if o.child {
		go endWith(os.Stdin, stop)
	}
	failed := make(chan error, 1)
	ready := make(chan struct{})
	go func() { failed <- runCluster(ctx, f, l, ready) }()
	for {
		select {
		case <-ready:
			ready = nil
			sayReady(stdout, f, l, time.Since(began))
		case err := <-failed:
			if ctx.Err() != nil {
				return stopped(f)
			}
			return fmt.Errorf("member %s: %w (log: %s)", f.name, err, f.path("log"))
		case <-ctx.Done():
			return stopped(f)
		}
	}
}

// readyLine is what a member prints when it can be used; up waits for it.
const readyLine = "devfleet member %s ready: %s after %.1f s, KUBECONFIG=%s\n"

func sayReady(w io.Writer, f folder, l net.Listener, took time.Duration) {
	_, _ = fmt.Fprintf(w, readyLine, f.name, "https://"+l.Addr().String(), took.Seconds(), f.kubeconfig())
}

// stopped removes the pid file, which tells a member that was stopped from one that died.
func stopped(f folder) error {
	if err := os.Remove(f.path("pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	return nil
}

// endWith calls stop when the reader ends.
func endWith(r io.Reader, stop func()) {
	_, _ = io.Copy(io.Discard, r)
	stop()
}

// prepare does all that can fail for reasons a person can mend, before anything runs.
func prepare(f folder) (net.Listener, error) {
	l, err := f.listen()
	if err != nil {
		return nil, err
	}
	if err := createPKI(f); err != nil {
		return nil, fmt.Errorf("member %s: keys: %w", f.name, err)
	}
	if err := writeAdminKubeconfig(f, "https://"+l.Addr().String()); err != nil {
		return nil, fmt.Errorf("member %s: kubeconfig: %w", f.name, err)
	}
	if err := logTo(f.path("log")); err != nil {
		return nil, fmt.Errorf("member %s: log: %w", f.name, err)
	}
	// Etcd's sockets have names relative to the folder.
	if err := os.Chdir(f.path()); err != nil {
		return nil, fmt.Errorf("member %s: %w", f.name, err)
	}
	return l, nil
}

// runCluster runs the parts until one fails, and closes ready once the cluster can be used.
func runCluster(ctx context.Context, f folder, l net.Listener, ready chan<- struct{}) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	etcdFailed, err := startEtcd(ctx, f)
	if err != nil {
		return err
	}
	failed := make(chan error, 5)
	run := func(part func(context.Context, folder) error) {
		go func() {
			if err := part(ctx, f); err != nil {
				failed <- err
			}
		}()
	}
	run(func(ctx context.Context, f folder) error { return runAPIServer(ctx, f, l) })
	run(func(ctx context.Context, f folder) error {
		if err := startParts(ctx, f, run); err != nil {
			return err
		}
		close(ready)
		return nil
	})
	select {
	case err := <-failed:
		return err
	case err := <-etcdFailed:
		return fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startParts waits for the API server, starts what works against it, and waits until a pod could be created and would run.
func startParts(ctx context.Context, f folder, run func(func(context.Context, folder) error)) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := until(ctx, "the API server to be ready", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		return err
	}
	run(runControllerManager)
	run(runScheduler)
	run(startKwok)
	run(startCloud)
	return until(ctx, "the default service account and a ready node", func() error {
		if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		return nodeReady(ctx, client)
	})
}

func nodeReady(ctx context.Context, c kubernetes.Interface) error {
	node, err := c.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node %s is tainted", nodeName)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("node %s is not ready", nodeName)
}

// until polls check; at the deadline it says what it waited for and what the last answer was.
func until(ctx context.Context, what string, check func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if apierrors.IsUnauthorized(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// logTo sends standard error to the log file, so that a panic of any part ends up there too; what this program itself
// has to say goes to the terminal through the copy that main keeps.
func logTo(file string) error {
	log, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	return syscall.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0)
}
