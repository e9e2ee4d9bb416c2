// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

func controllerManagerFlags(f folder) []string {
	return []string{
		"--kubeconfig=" + f.kubeconfig(),
		"--leader-elect=false",
		"--secure-port=0",
		"--controllers=*",
		"--service-account-private-key-file=" + f.pki("service-account.key"),
		"--root-ca-file=" + f.pki("ca.crt"),
		"--cluster-signing-cert-file=" + f.pki("ca.crt"),
		"--cluster-signing-key-file=" + f.pki("ca.key"),
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		// It makes this folder; the default is in /usr.
		"--flex-volume-plugin-dir=" + f.path("volume-plugins"),
		// The fake node has no kubelet whose silence would mean anything, and a member that was frozen and thawed
		// must not find its own node lost.
		"--node-monitor-grace-period=8760h",
	}
}

// runControllerManager returns only with the context or an error.
func runControllerManager(ctx context.Context, f folder) error {
	s, err := controllermanageroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	known, off, aliases := controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases()
	if err := parseFlags("kube-controller-manager", s.Flags(known, off, aliases), controllerManagerFlags(f)); err != nil {
		return err
	}
	config, err := s.Config(ctx, known, off, aliases)
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	if err := controllermanager.Run(ctx, config.Complete()); err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	return nil
}

// runScheduler returns only with the context or an error.
func runScheduler(ctx context.Context, f folder) error {
	s := scheduleroptions.NewOptions()
	args := []string{
		"--kubeconfig=" + f.kubeconfig(),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	}
	if err := parseFlags("kube-scheduler", *s.Flags, args); err != nil {
		return err
	}
	config, sched, err := scheduler.Setup(ctx, s)
	if err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	if err := scheduler.Run(ctx, config, sched); err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	return nil
}
