// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

func apiServerFlags(f folder) []string {
	return []string{
		"--etcd-servers=" + etcdEndpoint,
		"--advertise-address=127.0.0.1",
		// No Service may point at loopback, and nothing inside the cluster runs that would call it.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/16",
		"--cert-dir=" + f.path("pki"),
		"--tls-cert-file=" + f.pki("apiserver.crt"),
		"--tls-private-key-file=" + f.pki("apiserver.key"),
		"--client-ca-file=" + f.pki("ca.crt"),
		"--requestheader-client-ca-file=" + f.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + f.pki("front-proxy.crt"),
		"--proxy-client-key-file=" + f.pki("front-proxy.key"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + f.pki("service-account.pub"),
		"--service-account-signing-key-file=" + f.pki("service-account.key"),
		"--allow-privileged=true",
		"--event-ttl=10m",
		"--profiling=false",
		"--shutdown-delay-duration=0s",
	}
}

// runAPIServer serves on the open listener until the context ends. Nothing else in the process configures logging
// or the feature gates, which are global.
func runAPIServer(ctx context.Context, f folder, l net.Listener) error {
	s := options.NewServerRunOptions()
	if err := parseFlags("kube-apiserver", s.Flags(), apiServerFlags(f)); err != nil {
		return err
	}
	s.SecureServing.Listener = l
	s.SecureServing.BindAddress = net.IPv4(127, 0, 0, 1)
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if err := logsapi.ValidateAndApply(s.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	completed, err := s.Complete(ctx)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	if wrong := completed.Validate(); len(wrong) > 0 {
		return fmt.Errorf("kube-apiserver: %w", utilerrors.NewAggregate(wrong))
	}
	if err := app.Run(ctx, completed); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	return nil
}

// parseFlags sets a component's options the way its command line would.
func parseFlags(component string, sets cliflag.NamedFlagSets, args []string) error {
	flags := pflag.NewFlagSet(component, pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", component, err)
	}
	return nil
}
