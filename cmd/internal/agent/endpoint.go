// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// serve the read endpoint, and publish where it is.
func (r *running) serve(ctx context.Context) error {
	host, _, err := net.SplitHostPort(r.cfg.ReadAddr)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	certificates, err := readapi.NewCertificates(time.Now(), host)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	self := r.node.Self().Member.Name
	listener := &readapi.Listener{
		Addr: r.cfg.ReadAddr, TLS: certificates.Config,
		Server: &readapi.Server{
			Rollouts: r.control, Members: r, Changes: &r.notify,
			Auth:    &readapi.Delegated{Client: r.client},
			Version: readapi.Version{API: readapi.APIVersion, Member: self, Agent: r.version.AgentVersion, Kubernetes: r.version.KubernetesVersion},
			Log:     r.cfg.Log.WithName("read"),
		},
		Ready: func(addr net.Addr) {
			if err := r.publishEndpoint(ctx, "https://"+addr.String(), certificates.CA); err != nil {
				r.cfg.Log.Error(err, "where the read endpoint is could not be published; the CLI will not find it")
			}
		},
	}
	return listener.Run(ctx)
}

// Members is in readapi.Members.
func (r *running) Members() []readapi.FleetMember {
	return fleetMembers(r.node.Self(), r.node.Peers(), r.version)
}

// publishEndpoint says where the read endpoint is, and whom to believe there. Nothing is written when that is known.
func (r *running) publishEndpoint(ctx context.Context, address string, ca []byte) error {
	api := r.client.CoreV1().ConfigMaps(r.cfg.Namespace)
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: readapi.EndpointConfigMap},
		Data:       readapi.EndpointData(address, ca),
	}
	_, err := api.Update(ctx, want, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
	}
	return err
}
