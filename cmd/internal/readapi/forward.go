// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// channelProtocol of a forwarded port: one WebSocket per connection, each message led by its channel.
const channelProtocol = "v4.channel.k8s.io"

// forwardPatience with the cluster until a port is forwarded. The HTTP client's own context for a dial has no deadline.
const forwardPatience = 30 * time.Second

// forwarder reaches the agent's port inside of its pod, through the cluster's API server and as the caller. What goes
// through is TLS with the agent: neither the API server nor the node can read it or answer it.
type forwarder struct {
	config *rest.Config // of the cluster
	target *url.URL
	pod    string
	port   string
}

// forwarderTo the pod that an agent says it runs in.
func forwarderTo(config *rest.Config, pod, port string) (*forwarder, error) {
	client, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", config.Host, err)
	}
	request := client.RESTClient().Get().Namespace(EndpointNamespace).Resource("pods").Name(pod).SubResource("portforward").Param("ports", port)
	if err := request.Error(); err != nil {
		return nil, broken(fmt.Sprintf("pod %q: %v", pod, err))
	}
	return &forwarder{config: config, target: request.URL(), pod: pod, port: port}, nil
}

// dial is a rest.Config's. Where no port can be forwarded, one that is forwarded by hand does as well: whoever
// answers there has to show the agent's certificate.
func (f *forwarder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := f.forward(ctx)
	if err == nil {
		return conn, nil
	}
	err = f.failed(err)
	if fleet.KindOf(err) == fleet.Refused {
		return nil, err
	}
	var direct net.Dialer
	if conn, failed := direct.DialContext(ctx, network, address); failed == nil {
		return conn, nil
	}
	return nil, err
}

func (f *forwarder) forward(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardPatience)
	defer cancel()
	transport, held, err := websocket.RoundTripperFor(f.config) // one connection each
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.target.String(), nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Negotiate(transport, held, request, channelProtocol)
	if err != nil {
		return nil, err
	}
	return newTunnel(ws, f.remote), nil
}

func (f *forwarder) where() string { return "pod " + EndpointNamespace + "/" + f.pod }

// remote is what the node says about the port.
func (f *forwarder) remote(message string) error {
	return &fleet.Error{
		Err:  fmt.Errorf("port %s of %s: %s", f.port, f.where(), fleet.Cut(message)),
		Hint: "the agent may be starting again: " + f.look(),
	}
}

func (f *forwarder) look() string { return "kubectl -n " + EndpointNamespace + " get pod " + f.pod }

// failed says what keeps the API server from forwarding.
func (f *forwarder) failed(err error) error {
	var upgrade *httpstream.UpgradeFailureError
	if errors.As(err, &upgrade) { // does not unwrap
		err = upgrade.Cause
	}
	out := &fleet.Error{Err: fmt.Errorf("port-forward to %s: %w", f.where(), err)}
	var status *apierrors.StatusError
	is := errors.As(err, &status)
	switch {
	case errors.Is(err, context.Canceled):
	case apierrors.IsForbidden(err):
		out.Kind = fleet.Refused
		out.Hint = "the agent listens inside of its pod: ask for permission to get and create pods/portforward in " + EndpointNamespace
	case apierrors.IsUnauthorized(err):
		out.Kind = fleet.Refused
		out.Hint = "the cluster does not know you any more: log in again"
	case apierrors.IsNotFound(err):
		out.Hint = "the agent that published it is gone, or is starting again: kubectl -n " + EndpointNamespace + " get pods"
	case is:
		out.Hint = "is it running? " + f.look()
	default:
		out.Hint = "where something on the way passes no WebSockets, forward by hand and repeat: kubectl -n " +
			EndpointNamespace + " port-forward " + f.pod + " " + f.port
	}
	return out
}
