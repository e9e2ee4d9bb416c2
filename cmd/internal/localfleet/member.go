// SPDX-License-Identifier: Apache-2.0

package localfleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/deploy"
)

// SystemNamespace is where the agent lives.
const SystemNamespace = "flotilla-system"

// Member is one cluster with its agent.
type Member struct {
	Name   string
	Labels map[string]string
	// Kubeconfig of the cluster's administrator.
	Kubeconfig string
	// PeerID and Address of its agent, once it was installed.
	PeerID  string
	Address string
	// Config and Client of the administrator.
	Config *rest.Config
	Client kubernetes.Interface

	fleet *Fleet
	port  int

	mu             sync.Mutex
	cluster, agent *process // nil where none should run
}

func (m *Member) processes() (cluster, agent *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cluster, m.agent
}

func (m *Member) set(which **process, p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*which = p
}

func (m *Member) dir() string { return filepath.Join(m.fleet.Config.Dir, m.Name) }

// AgentLog is the file that the agent logs to.
func (m *Member) AgentLog() string {
	return filepath.Join(m.fleet.Config.Dir, "agents", m.Name+".log")
}

// StartCluster starts, or starts again, the control plane with the data it had.
func (m *Member) StartCluster(ctx context.Context) error {
	dir := m.fleet.Config.Dir
	if err := os.MkdirAll(filepath.Join(dir, "agents"), 0o700); err != nil {
		return err
	}
	cmd := exec.Command(m.fleet.Config.Devfleet, "member", "--name", m.Name, "--dir", dir) //nolint:gosec // our own program
	cluster, err := m.fleet.spawner.start(ctx, "cluster "+m.Name, filepath.Join(dir, "agents", m.Name+".cluster.log"), cmd)
	if err != nil {
		return err
	}
	m.set(&m.cluster, cluster)
	m.Kubeconfig = filepath.Join(m.dir(), "kubeconfig")
	return m.fleet.Await(ctx, "cluster "+m.Name, 2*time.Minute, func(ctx context.Context) (bool, string) {
		if err := m.connect(); err != nil {
			return false, err.Error()
		}
		body, err := m.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err != nil {
			return false, err.Error()
		}
		_, err = m.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, fmt.Sprintf("%s %v", body, err)
	})
}

func (m *Member) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", m.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	m.Config = config
	m.Client, err = kubernetes.NewForConfig(config)
	return err
}

// install what deploy/ holds, and make the agent's key.
func (m *Member) install(ctx context.Context) error {
	// The agent runs as a process of this machine, so its Deployment is left out.
	for _, pattern := range []string{"crd/*.yaml", "agent/namespace.yaml", "agent/rbac.yaml", "admission/*.yaml"} {
		if err := m.applyFiles(ctx, deploy.Files, pattern); err != nil {
			return fmt.Errorf("%s: install deploy/%s: %w", m.Name, pattern, err)
		}
	}
	out, err := exec.CommandContext(ctx, m.fleet.Config.Agent, "id", "--kubeconfig", m.Kubeconfig).Output() //nolint:gosec // our own program
	if err != nil {
		return fmt.Errorf("%s: agent id: %w", m.Name, withOutput(err))
	}
	m.PeerID = strings.TrimSpace(string(out))
	if m.port, err = freePort(); err != nil {
		return err
	}
	m.Address = fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", m.port)
	return nil
}

func withOutput(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}

// StartAgent under its own service account, on the data it had.
func (m *Member) StartAgent(ctx context.Context) error {
	cfg := m.fleet.Config
	out, err := exec.CommandContext(ctx, cfg.Devfleet, "kubeconfig", m.Name, "--dir", cfg.Dir, "--service-account", SystemNamespace+"/flotilla-agent").Output() //nolint:gosec // our own program
	if err != nil {
		return fmt.Errorf("%s: kubeconfig of the agent: %w", m.Name, withOutput(err))
	}
	cmd := exec.Command(cfg.Agent, //nolint:gosec // our own program
		"--kubeconfig", strings.TrimSpace(string(out)), "--fleet", cfg.Name,
		"--fleet-url", m.fleet.Git.URL("fleet"), "--fleet-interval", "10s",
		"--data-dir", filepath.Join(cfg.Dir, "agents", m.Name),
		"--listen", m.Address, "--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", m.port),
		"--metrics-addr", "0", "--probe-addr", "0",
	)
	agent, err := m.fleet.spawner.start(ctx, "agent "+m.Name, m.AgentLog(), cmd)
	if err != nil {
		return err
	}
	m.set(&m.agent, agent)
	return nil
}

// Kill the cluster and its agent, as a power cut does. Its data stays.
func (m *Member) Kill() {
	cluster, _ := m.processes()
	m.set(&m.cluster, nil)
	m.KillAgent()
	cluster.kill()
}

// KillAgent alone.
func (m *Member) KillAgent() {
	_, agent := m.processes()
	m.set(&m.agent, nil)
	agent.kill()
}

// Revive what was killed.
func (m *Member) Revive(ctx context.Context) error {
	if cluster, _ := m.processes(); cluster == nil {
		if err := m.StartCluster(ctx); err != nil {
			return err
		}
	}
	return m.StartAgent(ctx)
}

// Pids of the agent and of the cluster, 0 where there is none.
func (m *Member) Pids() (agent, cluster int) {
	c, a := m.processes()
	if a.running() {
		agent = a.cmd.Process.Pid
	}
	if c.running() {
		cluster = c.cmd.Process.Pid
	}
	return agent, cluster
}

// applyFiles as the administrator, by server-side apply, in order of name.
func (m *Member) applyFiles(ctx context.Context, files fs.FS, pattern string) error {
	names, err := fs.Glob(files, pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		if filepath.Base(name) == "kustomization.yaml" {
			continue
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if err := m.Apply(ctx, body); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Apply the objects of a YAML stream as the administrator.
func (m *Member) Apply(ctx context.Context, stream []byte) error {
	client, err := dynamic.NewForConfig(m.Config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(m.Client.Discovery()))
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			if strings.Contains(err.Error(), "EOF") {
				return nil
			}
			return err
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := applyOne(ctx, client, mapper, object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func applyOne(ctx context.Context, client dynamic.Interface, mapper meta.ResettableRESTMapper, object *unstructured.Unstructured) error {
	mapping, err := mapper.RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = SystemNamespace
		}
		resource = client.Resource(mapping.Resource).Namespace(namespace)
	}
	_, err = resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "localfleet", Force: true})
	return err
}

// Annotate one FleetRollout, named by a manifest with nothing but metadata in it.
func (m *Member) Annotate(ctx context.Context, manifest []byte) error {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &object.Object); err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(m.Config)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": object.GetAnnotations()}})
	if err != nil {
		return err
	}
	resource := v1alpha1.GroupVersion.WithResource("fleetrollouts")
	_, err = client.Resource(resource).Namespace(object.GetNamespace()).Patch(ctx, object.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// Tenant makes a namespace with the service account that rollouts in it are delivered as; it may do in
// its namespace what an editor may.
func (m *Member) Tenant(ctx context.Context, namespace string) error {
	return m.Apply(ctx, fmt.Appendf(nil, tenant, namespace))
}

const tenant = `apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: flotilla
  namespace: %[1]s
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: flotilla
  namespace: %[1]s
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: edit
subjects:
- kind: ServiceAccount
  name: flotilla
  namespace: %[1]s
`

// manifest is the member's FleetMember.
func (m *Member) manifest() string {
	var labels strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		fmt.Fprintf(&labels, "    %s: %q\n", key, m.Labels[key])
	}
	return fmt.Sprintf(`apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetMember
metadata:
  name: %s
  labels:
%sspec:
  peerID: %s
  addresses:
  - %s
`, m.Name, labels.String(), m.PeerID, m.Address)
}
