// SPDX-License-Identifier: Apache-2.0

// Package kube answers: how is a release brought into the cluster behind an API server?
//
// By server-side apply, as the service account that the rollout names and never as the agent: what the account may
// not do, the API server refuses. The agent's own rights are used for four things only: to see that the account and
// the namespaces are there, to learn the server's kinds, to impersonate, and to keep inventories in its namespace.
package kube

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Defaults of a Cluster.
const (
	DefaultNamespace  = "flotilla-system"
	DefaultFieldOwner = "flotilla"
	DefaultTimeout    = 30 * time.Second
)

const (
	// maxAccounts that clients are kept for. A client is a few kilobytes; connections are shared by all.
	maxAccounts = 64
	// concurrency of reads and dry-runs of one delivery.
	concurrency = 8
)

// Cluster is a delivery.Deliverer. There is nothing to start or to stop. It is safe for concurrent use; of two
// deliveries of one rollout at once, one fails (Retryable) before it does harm.
type Cluster struct {
	// Config of the agent's own identity. Required; it is copied before it is changed.
	Config *rest.Config
	// Namespace of the inventories; empty: DefaultNamespace.
	Namespace string
	// FieldOwner of what is applied; empty: DefaultFieldOwner.
	FieldOwner string
	// Timeout of one request; 0: DefaultTimeout.
	Timeout time.Duration

	mu   sync.Mutex
	conn *connection
}

// connection is what is known of the server and may have to be learned anew.
type connection struct {
	config   *rest.Config
	http     *http.Client
	kinds    meta.RESTMapper
	own      client.Client
	accounts *lru.Cache // account -> clients
}

// clients that act as one account, over one transport.
type clients struct {
	objects client.Client
	// watching has no limit of time, and sees metadata only.
	watching metadata.Interface
}

// account is a service account that a rollout's objects are written as.
type account struct{ namespace, name string }

func (a account) String() string { return a.namespace + "/" + a.name }

// user is the name that the API server knows the account by.
func (a account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

// accountOf refuses names that no service account can have. An empty user name would not be impersonated at all,
// and the request would run with the agent's rights.
func accountOf(rollout fleet.RolloutName, name string) (account, error) {
	a := account{namespace: rollout.Namespace, name: name}
	wrong := append(validation.IsDNS1123Label(a.namespace), validation.IsDNS1123Subdomain(a.name)...)
	if len(wrong) > 0 {
		return account{}, &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonServiceAccountNotFound,
			Err: fmt.Errorf("%q is no service account: %s", a.String(), strings.Join(wrong, "; ")),
		}
	}
	return a, nil
}

func (c *Cluster) namespace() string {
	if c.Namespace == "" {
		return DefaultNamespace
	}
	return c.Namespace
}

func (c *Cluster) fieldOwner() string {
	if c.FieldOwner == "" {
		return DefaultFieldOwner
	}
	return c.FieldOwner
}

// connect gives the connection, made at first use. It does not reach the server.
func (c *Cluster) connect() (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	config := rest.CopyConfig(c.Config)
	config.Timeout = c.Timeout
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	if config.QPS == 0 {
		// The server's own priority and fairness is the better judge; this only stops a runaway.
		config.QPS, config.Burst = 1000, 2000
	}
	config.WarningHandlerWithContext = rest.NoWarnings{}
	conn := &connection{config: config, accounts: lru.New(maxAccounts)}
	var err error
	if conn.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if conn.kinds, err = apiutil.NewDynamicRESTMapper(config, conn.http); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if conn.own, err = client.New(config, client.Options{HTTPClient: conn.http, Mapper: conn.kinds}); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	c.conn = conn
	return conn, nil
}

// forget drops what was learned of the server's kinds: they have turned out to be others.
func (c *Cluster) forget(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
}

// as gives the clients that act as the account. Groups are left out on purpose: the server adds the account's own, and
// to name them would take rights that the agent does not have.
func (conn *connection) as(a account) (clients, error) {
	if known, ok := conn.accounts.Get(a); ok {
		return known.(clients), nil
	}
	config := rest.CopyConfig(conn.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: a.user()}
	made, err := newClients(config, conn.kinds)
	if err != nil {
		return clients{}, fmt.Errorf("API server as %s: %w", a, err)
	}
	conn.accounts.Add(a, made)
	return made, nil
}

func newClients(config *rest.Config, kinds meta.RESTMapper) (clients, error) {
	limited, err := rest.HTTPClientFor(config)
	if err != nil {
		return clients{}, err
	}
	objects, err := client.New(config, client.Options{HTTPClient: limited, Mapper: kinds})
	if err != nil {
		return clients{}, err
	}
	config.Timeout = 0
	watching, err := metadata.NewForConfigAndClient(config, &http.Client{Transport: limited.Transport})
	if err != nil {
		return clients{}, err
	}
	return clients{objects, watching}, nil
}

// Inventory of a rollout; the zero inventory where nothing was ever delivered.
func (c *Cluster) Inventory(ctx context.Context, rollout fleet.RolloutName) (delivery.Inventory, error) {
	conn, err := c.connect()
	if err != nil {
		return delivery.Inventory{}, err
	}
	stored, err := c.inventory(ctx, conn, rollout)
	return stored.Inventory, err
}

var _ delivery.Deliverer = (*Cluster)(nil)
