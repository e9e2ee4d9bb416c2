// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// bearer lets in who shows this token.
type bearer string

func (b bearer) Authorize(_ context.Context, r *http.Request, need Access) error {
	switch {
	case r.Header.Get("Authorization") != "Bearer "+string(b):
		return refusal(ReasonUnauthorized, "who are you", "log in")
	case need.Name == "secret":
		return refusal(ReasonForbidden, "not this one", "")
	}
	return nil
}

// agent listens on loopback until the test ends.
func startAgent(t *testing.T, b *backend) (address string, ca []byte) {
	t.Helper()
	certs, err := NewCertificates(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Rollouts: b, Members: b, Changes: b, Auth: bearer("secret-token"), Version: Version{Member: "c1", Agent: "v0.1.0"}}
	where := make(chan string, 1)
	l := &Listener{Addr: "127.0.0.1:0", Server: server, TLS: certs.Config, Ready: func(a net.Addr) { where <- a.String() }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "https://" + <-where, certs.CA
}

// startAPIServer knows one ConfigMap, if any, for whoever has the token, and what else is put on it.
func startAPIServer(t *testing.T, data map[string]string, more ...func(*http.ServeMux)) *rest.Config {
	t.Helper()
	mux := http.NewServeMux()
	for _, m := range more {
		m(mux)
	}
	mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/configmaps/flotilla-agent-endpoint", func(w http.ResponseWriter, r *http.Request) {
		status := func(code int, reason metav1.StatusReason) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: string(reason),
			})
		}
		switch {
		case r.Header.Get("Authorization") != "Bearer secret-token":
			status(403, metav1.StatusReasonForbidden)
		case data == nil:
			status(404, metav1.StatusReasonNotFound)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, Data: data})
		}
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &rest.Config{Host: server.URL, BearerToken: "secret-token", TLSClientConfig: rest.TLSClientConfig{CAData: ca, ServerName: "example.com"}}
}

func find(t *testing.T, b *backend) *Client {
	t.Helper()
	address, ca := startAgent(t, b)
	c, err := Find(t.Context(), startAPIServer(t, EndpointData(address, ca)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func TestFindFails(t *testing.T) {
	address, ca := startAgent(t, newBackend())
	for name, test := range map[string]struct {
		data map[string]string
		want string
	}{
		"no agent":       {nil, "no agent in this cluster (install one, or choose a member of the fleet with --context)"},
		"not https":      {EndpointData("http://127.0.0.1:1", ca), `address "http://127.0.0.1:1" is not https://HOST:PORT`},
		"no address":     {EndpointData("", ca), "is not https://HOST:PORT"},
		"not an address": {EndpointData("https://%zz", ca), "is not https://HOST:PORT"},
		"no CA":          {EndpointData(address, nil), "ca.crt holds no certificate"},
	} {
		_, err := Find(t.Context(), startAPIServer(t, test.data))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, ErrNoAgent) != (test.data == nil) {
			t.Errorf("%s: is ErrNoAgent: %v", name, err)
		}
	}
	config := startAPIServer(t, EndpointData(address, ca))
	config.BearerToken = "other"
	if _, err := Find(t.Context(), config); err == nil || !strings.Contains(err.Error(), "ask for permission to get it") {
		t.Errorf("forbidden: %v", err)
	}
	config = &rest.Config{Host: "https://" + closedPort(t)}
	if _, err := Find(t.Context(), config); err == nil || fleet.KindOf(err) != fleet.Retryable || errors.Is(err, ErrNoAgent) {
		t.Errorf("cluster away: %v", err)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestCalls(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("over the network", func(t *testing.T) {
		c := find(t, newBackend(web("web"), Rollout{Namespace: "other", Name: "db"}))
		ctx := t.Context()
		if v, err := c.Version(ctx); err != nil || v.Agent != "v0.1.0" || v.API != "v1" {
			t.Errorf("version %+v, %v", v, err)
		}
		if m, err := c.Members(ctx); err != nil || len(m) != 0 {
			t.Errorf("members %+v, %v", m, err)
		}
		if l, err := c.Rollouts(ctx, ""); err != nil || len(l) != 2 {
			t.Errorf("rollouts %+v, %v", l, err)
		}
		if l, err := c.Rollouts(ctx, "apps"); err != nil || len(l) != 1 || l[0].Name != "web" {
			t.Errorf("rollouts of apps %+v, %v", l, err)
		}
		if r, err := c.Rollout(ctx, fleet.RolloutName{Namespace: "apps", Name: "web"}); err != nil || len(r.Members) != 1 {
			t.Errorf("rollout %+v, %v", r, err)
		}
		if e, err := c.Explain(ctx, fleet.RolloutName{Namespace: "apps", Name: "web"}, "eu 1"); err != nil || e.Member != "eu 1" {
			t.Errorf("explanation %+v, %v", e, err)
		}
		_, err := c.Rollout(ctx, fleet.RolloutName{Namespace: "apps", Name: "none"})
		if !IsNotFound(err) || !strings.Contains(err.Error(), "rollout apps/none is not known to member c1 (flotilla get rollouts -A") {
			t.Errorf("unknown: %v", err)
		}
		_, err = c.Rollout(ctx, fleet.RolloutName{Namespace: "apps", Name: "secret"})
		if fleet.KindOf(err) != fleet.Refused || !strings.Contains(err.Error(), "not this one") {
			t.Errorf("forbidden: %v", err)
		}
		if _, err = c.Rollout(ctx, fleet.RolloutName{Namespace: "..", Name: "version"}); err == nil {
			t.Errorf("a name is no path: %v", err)
		}
	})
}

func TestAgentAway(t *testing.T) {
	_, ca := startAgent(t, newBackend())
	c, err := Find(t.Context(), startAPIServer(t, EndpointData("https://"+closedPort(t), ca)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Version(t.Context())
	if err == nil || fleet.KindOf(err) != fleet.Retryable || !strings.Contains(err.Error(), "cannot be reached") || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("away: %v", err)
	}
	address, _ := startAgent(t, newBackend())
	if c, err = Find(t.Context(), startAPIServer(t, EndpointData(address, ca))); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "somebody else is at its address") {
		t.Errorf("another agent's CA: %v", err)
	}
}

func TestWatchOverTheNetwork(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("one agent", func(t *testing.T) {
		b := newBackend(web("web"))
		c := find(t, b)
		name := fleet.RolloutName{Namespace: "apps", Name: "web"}
		var seen []string
		err := c.Watch(t.Context(), name, func(r Rollout) (bool, error) {
			seen = append(seen, r.Stages[0].Phase)
			if len(seen) == 1 {
				b.set(inPhase("Complete"))
			}
			return r.Stages[0].Phase == "Complete", nil
		})
		if err != nil || strings.Join(seen, " ") != "Progressing Complete" {
			t.Errorf("until done: %v %v", seen, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err = c.Watch(ctx, name, func(Rollout) (bool, error) { cancel(); return false, nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		mine := errors.New("mine")
		err = c.Watch(t.Context(), name, func(Rollout) (bool, error) { return false, mine })
		if !errors.Is(err, mine) {
			t.Errorf("the caller's error: %v", err)
		}
		err = c.Watch(t.Context(), name, func(Rollout) (bool, error) { b.remove(name); return false, nil })
		if !errors.Is(err, ErrGone) {
			t.Errorf("gone: %v", err)
		}
		if err = c.Watch(t.Context(), name, nil); !IsNotFound(err) {
			t.Errorf("unknown: %v", err)
		}
	})
}

// TestListenerEndsWithWatchers: a watch does not keep the agent from ending.
func TestListenerEndsWithWatchers(t *testing.T) {
	var c *Client
	first, ended := make(chan struct{}), make(chan error, 1)
	t.Run("agent", func(t *testing.T) {
		c = find(t, newBackend(web("web")))
		go func() {
			ended <- c.Watch(context.Background(), fleet.RolloutName{Namespace: "apps", Name: "web"}, func(Rollout) (bool, error) { close(first); return false, nil })
		}()
		<-first
	}) // its cleanup ends the agent
	if err := <-ended; err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestListenerFailsWhereItCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	certs, err := NewCertificates(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	taken := &Listener{Addr: l.Addr().String(), Server: newServer(newBackend(), &gate{}), TLS: certs.Config}
	if err := taken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "read endpoint") {
		t.Errorf("the port is taken: %v", err)
	}
}

func TestReadEvents(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		seen   int
		err    error
	}{
		"events and comments":         {"data: {\"name\":\"a\"}\n\n: still here\n\ndata: {\"name\":\"b\"}\n\n", 2, io.ErrUnexpectedEOF},
		"gone":                        {"data: {}\n\nevent: gone\ndata: {}\n\n", 1, ErrGone},
		"of a newer agent":            {"event: novel\ndata: [1]\n\ndata: {}\n\n", 1, io.ErrUnexpectedEOF},
		"fields of a newer agent":     {"id: 7\nretry: 3\ndata: {\"novel\":1}\n\n", 1, io.ErrUnexpectedEOF},
		"nothing":                     {"", 0, io.ErrUnexpectedEOF},
		"cut in the middle of a word": {"data: {\"na", 0, nil},
	} {
		n := 0
		err := readEvents(strings.NewReader(test.stream), func() {}, func(Rollout) (bool, error) { n++; return false, nil })
		if n != test.seen || err == nil || test.err != nil && !errors.Is(err, test.err) {
			t.Errorf("%s: %d seen, %v", name, n, err)
		}
	}
}

// TestReadEventsOfAnything: whatever comes, a stream ends well only where the caller says so.
func TestReadEventsOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]string{"", "data: {}", "event: gone", "event: novel", ": beat", "data: ", "data: {\"members\":[{\"heardSeconds\":1}]}", "event: "}),
			rapid.String(),
		)).Draw(t, "lines")
		seen := 0
		err := readEvents(strings.NewReader(strings.Join(lines, "\n")), func() {}, func(Rollout) (bool, error) { seen++; return false, nil })
		if err == nil || seen > len(lines) {
			t.Fatalf("%d seen, %v", seen, err)
		}
	})
}

// TestHeadersAreBounded: nobody fills the agent's memory before they have said who they are.
func TestHeadersAreBounded(t *testing.T) {
	address, _ := startAgent(t, newBackend())
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // HTTP/1.1, to see the status
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"/v1/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 2*maxHeaderBytes))
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %s", response.Status)
	}
}
