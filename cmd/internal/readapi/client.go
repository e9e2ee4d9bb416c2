// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Where the agent of a member publishes how to reach it.
const (
	EndpointNamespace = "flotilla-system"
	EndpointConfigMap = "flotilla-agent-endpoint"

	endpointAddress = "address"
	endpointCA      = "ca.crt"
	endpointPod     = "pod"
)

// EndpointData is what an agent writes into the data of that ConfigMap: its address, such as
// https://127.0.0.1:4443, and the authority of its certificate, PEM.
func EndpointData(address string, ca []byte) map[string]string {
	return map[string]string{endpointAddress: address, endpointCA: string(ca)}
}

// EndpointInPod is EndpointData of an agent in a pod of EndpointNamespace; "" is none.
func EndpointInPod(address string, ca []byte, pod string) map[string]string {
	out := EndpointData(address, ca)
	if pod != "" {
		out[endpointPod] = pod
	}
	return out
}

// ErrNoAgent is in Find's error where the cluster has no agent.
var ErrNoAgent = errors.New("no agent in this cluster")

// maxAnswer bounds what a client reads of one answer, in bytes.
const maxAnswer = 64 << 20

// StatusError is an answer other than 200.
type StatusError struct {
	Code int
	Problem
}

func (e *StatusError) Error() string { return e.Problem.Error }

// Client asks one agent.
type Client struct {
	base string
	http *http.Client
}

// Find the agent of the cluster that a kubeconfig points at. The caller's own identity is used for
// both: the cluster's API, to find the agent, and the agent. Where that listens on the loopback of its pod, every
// connection goes through the cluster's API server.
func Find(ctx context.Context, config *rest.Config) (*Client, error) {
	endpoint, err := readEndpoint(ctx, config)
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(endpoint.Data[endpointAddress])
	if err != nil || address.Scheme != "https" || address.Host == "" {
		return nil, broken(fmt.Sprintf("address %q is not https://HOST:PORT", endpoint.Data[endpointAddress]))
	}
	ca := []byte(endpoint.Data[endpointCA])
	if !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return nil, broken("ca.crt holds no certificate")
	}
	there := toAgent(config, ca)
	if pod := endpoint.Data[endpointPod]; pod != "" && onLoopback(address.Hostname()) {
		forward, err := forwarderTo(config, pod, address.Port())
		if err != nil {
			return nil, err
		}
		there.Dial = forward.dial // the name in the agent's certificate stays that of its address
	}
	client, err := rest.HTTPClientFor(there)
	if err != nil {
		return nil, fmt.Errorf("agent at %s: %w", address.Host, err)
	}
	// A redirect would carry the caller's token elsewhere; the agent sends none.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: "https://" + address.Host + "/" + APIVersion, http: client}, nil
}

// toAgent is the caller's identity, for another server: another authority, and nothing else of how
// the cluster's API is reached.
func toAgent(config *rest.Config, ca []byte) *rest.Config {
	out := rest.CopyConfig(config)
	out.Insecure, out.ServerName, out.CAFile, out.CAData = false, "", "", ca
	out.NextProtos, out.Dial, out.Proxy = nil, nil, nil
	out.Timeout = 0 // it would end a watch; every other call has the caller's context
	return out
}

func broken(what string) error {
	return &fleet.Error{
		Kind: fleet.Refused, Hint: "restart the agent: it writes the ConfigMap at its start",
		Err: fmt.Errorf("ConfigMap %s/%s: %s", EndpointNamespace, EndpointConfigMap, what),
	}
}

func readEndpoint(ctx context.Context, config *rest.Config) (*corev1.ConfigMap, error) {
	client, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", config.Host, err)
	}
	found, err := client.ConfigMaps(EndpointNamespace).Get(ctx, EndpointConfigMap, metav1.GetOptions{})
	where := fmt.Sprintf("cluster %s: ConfigMap %s/%s", config.Host, EndpointNamespace, EndpointConfigMap)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &fleet.Error{Kind: fleet.Refused, Err: fmt.Errorf("%s: %w", where, ErrNoAgent), Hint: "install one, or choose a member of the fleet with --context"}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return nil, &fleet.Error{Kind: fleet.Refused, Err: fmt.Errorf("%s: %w", where, err), Hint: "the agent is found through it: ask for permission to get it"}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return found, nil
}

// Version of the agent.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/version", nil)
}

// Members of the fleet, as the agent knows them.
func (c *Client) Members(ctx context.Context) ([]FleetMember, error) {
	list, err := get[List[FleetMember]](ctx, c, "/members", nil)
	return list.Items, err
}

// Rollouts of a namespace, or of all of them where it is "", without their members.
func (c *Client) Rollouts(ctx context.Context, namespace string) ([]Rollout, error) {
	query := url.Values{}
	if namespace != "" {
		query.Set("namespace", namespace)
	}
	list, err := get[List[Rollout]](ctx, c, "/rollouts", query)
	return list.Items, err
}

// Rollout with its members.
func (c *Client) Rollout(ctx context.Context, name fleet.RolloutName) (Rollout, error) {
	return get[Rollout](ctx, c, pathOf(name), nil)
}

// Explain why a member may or may not go; "" is the agent's own.
func (c *Client) Explain(ctx context.Context, name fleet.RolloutName, member fleet.Name) (Explanation, error) {
	query := url.Values{}
	if member != "" {
		query.Set("member", string(member))
	}
	return get[Explanation](ctx, c, pathOf(name)+"/explain", query)
}

// Events is one page of what was signed about a rollout.
func (c *Client) Events(ctx context.Context, name fleet.RolloutName, q EventQuery) (Events, error) {
	return get[Events](ctx, c, pathOf(name)+"/events", q.values())
}

// Releases of a rollout that the agent knows of, newest first.
func (c *Client) Releases(ctx context.Context, name fleet.RolloutName) (Releases, error) {
	return get[Releases](ctx, c, pathOf(name)+"/releases", nil)
}

// Objects is one page of what a rollout has in the agent's own cluster; from is the Continue of the page before.
func (c *Client) Objects(ctx context.Context, name fleet.RolloutName, from string) (Objects, error) {
	query := url.Values{}
	if from != "" {
		query.Set("continue", from)
	}
	return get[Objects](ctx, c, pathOf(name)+"/objects", query)
}

func pathOf(name fleet.RolloutName) string {
	return "/rollouts/" + url.PathEscape(name.Namespace) + "/" + url.PathEscape(name.Name)
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	response, err := c.send(ctx, path, query)
	if err != nil {
		return out, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&out); err != nil {
		return out, fmt.Errorf("agent at %s: %s: %w", response.Request.URL.Host, path, err)
	}
	return out, nil
}

// send a question; an answer other than 200 is an error.
func (c *Client) send(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, unreachable(request.URL.Host, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	return nil, refused(request.URL.Host, response)
}

func unreachable(host string, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) { // says the method and the whole address once more
		err = wrapped.Err
	}
	out := &fleet.Error{Err: fmt.Errorf("agent at %s cannot be reached: %w", host, err)}
	var authority x509.UnknownAuthorityError
	var known *fleet.Error // of the forwarder
	switch {
	case errors.As(err, &known):
		out.Kind, out.Hint, out.Err = known.Kind, known.Hint, fmt.Errorf("agent at %s cannot be reached: %w", host, known.Err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &authority):
		out.Hint = "it may be starting again, or somebody else is at its address"
	default:
		out.Hint = "is it running, and is its address reachable from here? It is the one in ConfigMap " + EndpointNamespace + "/" + EndpointConfigMap
		out.Hint += forwarding(host)
	}
	return out
}

// forwarding makes a loopback address reachable that is inside of a pod, though the agent does not say so: the same
// port, forwarded.
func forwarding(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil || !onLoopback(name) {
		return ""
	}
	return fmt.Sprintf("; where the agent runs in a pod: kubectl -n %s port-forward deploy/flotilla-agent %s", EndpointNamespace, port)
}

func onLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || host == "localhost"
}

func refused(host string, response *http.Response) error {
	problem := &StatusError{Code: response.StatusCode}
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || json.Unmarshal(body, &problem.Problem) != nil || problem.Problem.Error == "" {
		problem.Problem = Problem{Error: response.Status}
	}
	if problem.Problem.Error == nothingHere {
		problem.Problem = Problem{
			Error: "it does not know " + response.Request.URL.Path,
			Hint:  "the agent is older than this command: update it; flotilla version shows both",
		}
	}
	kind := fleet.Refused
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= http.StatusInternalServerError {
		kind = fleet.Retryable
	}
	return &fleet.Error{Kind: kind, Hint: strings.TrimSpace(problem.Hint), Err: fmt.Errorf("agent at %s: %w", host, problem)}
}

// IsNotFound says that the agent answered, and knows no such thing.
func IsNotFound(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
