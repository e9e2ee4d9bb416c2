// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// KubeInputs reads what renders take from the cluster's API: turn.Inputs, and source.Secrets. Everything is read as the service account
// that the rollout names, so that nobody reads through the agent what he may not read himself. Nothing is kept but
// what the server serves, and that for a minute.
type KubeInputs struct {
	// Config is how the agent reaches its own cluster.
	Config *rest.Config
	// Namespace of the agent. Its own secrets are read as the agent: by a Reader without account, which no rollout has.
	Namespace string
	// Clock is read for Elapsed alone.
	Clock func() fleet.Moment

	mu      sync.Mutex
	readers map[source.Reader]kubernetes.Interface

	looking sync.Mutex // guards served; apart from mu, so that no Secret waits while the server is asked what it serves
	served  served
}

// served by the API server, as it was last seen whole.
type served struct {
	seen     bool
	at       time.Duration
	version  string
	versions map[string][]string // group/version: itself and its kinds
	sorted   []string            // all of versions
}

const (
	// keepCapabilities so long: a kind that is new is seen after it at the latest.
	keepCapabilities = time.Minute
	// mostReaders whose clients are kept.
	mostReaders = 256
)

// Secret is in source.Secrets.
func (k *KubeInputs) Secret(ctx context.Context, as source.Reader, name string) (map[string][]byte, error) {
	client, err := k.as(as)
	if err != nil {
		return nil, err
	}
	secret, err := client.CoreV1().Secrets(as.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, unreadable(err, as, specialize.Reference{Kind: "Secret", Name: name}, v1alpha1.ReasonCredentialsMissing)
	}
	return secret.Data, nil
}

// Objects is in turn.Inputs.
func (k *KubeInputs) Objects(ctx context.Context, as source.Reader, refs []specialize.Reference) (map[specialize.Reference]map[string]string, error) {
	client, err := k.as(as)
	if err != nil {
		return nil, err
	}
	found := map[specialize.Reference]map[string]string{}
	for _, ref := range refs {
		data, err := read(ctx, client.CoreV1().RESTClient(), as, ref)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, unreadable(err, as, ref, v1alpha1.ReasonInputMissing)
		}
		found[ref] = data
	}
	return found, nil
}

func read(ctx context.Context, client rest.Interface, as source.Reader, ref specialize.Reference) (map[string]string, error) {
	if ref.Kind == "Secret" {
		var secret corev1.Secret
		err := client.Get().Namespace(as.Namespace).Resource("secrets").Name(ref.Name).Do(ctx).Into(&secret)
		data := make(map[string]string, len(secret.Data))
		for key, value := range secret.Data {
			data[key] = string(value)
		}
		return data, err
	}
	var config corev1.ConfigMap
	err := client.Get().Namespace(as.Namespace).Resource("configmaps").Name(ref.Name).Do(ctx).Into(&config)
	data := maps.Clone(config.Data)
	for key, value := range config.BinaryData {
		if data == nil {
			data = map[string]string{}
		}
		data[key] = string(value)
	}
	return data, err
}

// unreadable says what to do about an object that the reader cannot read. Somebody can put it there or allow it at any
// time, so it is tried again.
func unreadable(err error, as source.Reader, ref specialize.Reference, reason string) error {
	out := &fleet.Error{Kind: fleet.Retryable, Reason: reason, Err: fmt.Errorf("%s %s/%s: %w", ref.Kind, as.Namespace, ref.Name, err)}
	resource := strings.ToLower(ref.Kind) + "s"
	switch {
	case apierrors.IsNotFound(err):
		out.Err = fmt.Errorf("%s %s/%s is not there", ref.Kind, as.Namespace, ref.Name)
		out.Hint = "create it in this cluster, or correct the name"
	case apierrors.IsForbidden(err) && as.ServiceAccount == "":
		out.Hint = "the agent may read Secret flotilla-repository of its own namespace; for another name extend its Role"
	case apierrors.IsForbidden(err):
		out.Hint = fmt.Sprintf("let the account that delivers read it: kubectl -n %s create role flotilla-reads --verb=get --resource=%s --resource-name=%s, and bind it to service account %s",
			as.Namespace, resource, ref.Name, as.ServiceAccount)
	default:
		out.Reason = "" // the server's trouble, not the object's
	}
	return out
}

// as gives the client of a reader. Groups are left out on purpose: the server adds the account's own. Names that no
// account can have are refused: whom the server would take them for is not for a rollout to find out.
func (k *KubeInputs) as(reader source.Reader) (kubernetes.Interface, error) {
	wrong := validation.IsDNS1123Label(reader.Namespace)
	if reader.ServiceAccount != "" {
		wrong = append(wrong, validation.IsDNS1123Subdomain(reader.ServiceAccount)...)
	}
	if len(wrong) > 0 || reader.ServiceAccount == "" && reader.Namespace != k.Namespace {
		return nil, &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonServiceAccountNotFound,
			Err: fmt.Errorf("nobody reads as %q: it is no service account", reader.Namespace+"/"+reader.ServiceAccount),
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if client, ok := k.readers[reader]; ok {
		return client, nil
	}
	config := rest.CopyConfig(k.Config)
	if reader.ServiceAccount != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + reader.Namespace + ":" + reader.ServiceAccount}
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API server as %s/%s: %w", reader.Namespace, reader.ServiceAccount, err)
	}
	if k.readers == nil || len(k.readers) >= mostReaders {
		k.readers = map[source.Reader]kubernetes.Interface{}
	}
	k.readers[reader] = client
	return client, nil
}

// Capabilities is in turn.Inputs. A group that its server does not list now counts with what it listed last; one that was
// never seen is an error, because to take it for absent would take objects out of what a chart renders (R12).
func (k *KubeInputs) Capabilities(context.Context) (string, []string, error) {
	k.looking.Lock()
	defer k.looking.Unlock()
	if now := k.Clock().Elapsed; !k.served.seen || now-k.served.at >= keepCapabilities {
		next, err := k.discover()
		if err != nil {
			return "", nil, err
		}
		next.at, next.sorted = now, slices.Concat(slices.Collect(maps.Values(next.versions))...)
		slices.Sort(next.sorted)
		k.served = next
	}
	return k.served.version, slices.Clone(k.served.sorted), nil
}

func (k *KubeInputs) discover() (served, error) {
	client, err := discovery.NewDiscoveryClientForConfig(k.Config)
	if err != nil {
		return served{}, fmt.Errorf("API server: %w", err)
	}
	info, err := client.ServerVersion()
	if err != nil {
		return served{}, fmt.Errorf("version of the API server: %w", err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	var failed map[schema.GroupVersion]error
	if err != nil {
		var is bool
		if failed, is = discovery.GroupDiscoveryFailedErrorGroups(err); !is {
			return served{}, fmt.Errorf("what the API server serves: %w", err)
		}
	}
	next := served{seen: true, version: info.GitVersion, versions: map[string][]string{}}
	for _, list := range lists {
		kinds := map[string]bool{list.GroupVersion: true}
		for i := range list.APIResources {
			kinds[path.Join(list.GroupVersion, list.APIResources[i].Kind)] = true
		}
		next.versions[list.GroupVersion] = slices.Collect(maps.Keys(kinds))
	}
	for gv, why := range failed {
		known, ok := k.served.versions[gv.String()]
		if !ok {
			return served{}, &fleet.Error{
				Kind: fleet.Retryable, Reason: v1alpha1.ReasonInputMissing, Hint: "kubectl get apiservices shows which one is not available",
				Err: fmt.Errorf("what the API server serves cannot be told: %s: %w; a chart could lose objects over it", gv, why),
			}
		}
		next.versions[gv.String()] = known
	}
	return next, nil
}

var (
	_ turn.Inputs    = (*KubeInputs)(nil)
	_ source.Secrets = (*KubeInputs)(nil)
)
