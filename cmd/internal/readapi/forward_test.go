// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

const agentPod = "flotilla-agent-5d8c7b9f6-x2x4z"

// node forwards one port of one pod, as a container runtime does and with the library that those have it from. Nothing
// but the node knows where the agent listens.
type node struct {
	port  string // that the agent publishes
	agent string // where it listens

	forwarded atomic.Int64
}

func (n *node) on(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/pods/{pod}/portforward", n.serve)
}

func (n *node) serve(w http.ResponseWriter, r *http.Request) {
	ports := r.URL.Query()["ports"]
	switch {
	case r.Header.Get("Authorization") != "Bearer secret-token":
		say(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	case r.PathValue("pod") != agentPod:
		say(w, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, r.PathValue("pod")))
		return
	case len(ports) != 1 || ports[0] != n.port:
		say(w, apierrors.NewBadRequest("ports "+strings.Join(ports, ",")))
		return
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		"v4.channel.k8s.io": {Binary: true, Channels: []wsstream.ChannelType{wsstream.ReadWriteChannel, wsstream.WriteChannel}},
	})
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return
	}
	defer conn.Close()
	data, failed := streams[0], streams[1]
	number, _ := strconv.ParseUint(n.port, 10, 16)
	header := binary.LittleEndian.AppendUint16(nil, uint16(number))
	_, _ = data.Write(header)
	_, _ = failed.Write(header)
	inside, err := net.Dial("tcp", n.agent)
	if err != nil {
		fmt.Fprintf(failed, "error forwarding port %s to pod 1f2e3d, uid : failed to connect to localhost:%s inside namespace: %v", n.port, n.port, err)
		return
	}
	defer inside.Close()
	n.forwarded.Add(1)
	go func() { // ends with the connection
		_, _ = io.Copy(inside, data)
		inside.Close()
	}()
	_, _ = io.Copy(data, inside)
}

func say(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(status)
}

// startInPod is an agent whose published port is nobody's here, and the node that it runs on.
func startInPod(t *testing.T, b *backend) (n *node, data map[string]string) {
	t.Helper()
	address, ca := startAgent(t, b)
	published := closedPort(t)
	_, port, err := net.SplitHostPort(published)
	if err != nil {
		t.Fatal(err)
	}
	return &node{port: port, agent: strings.TrimPrefix(address, "https://")}, EndpointInPod("https://"+published, ca, agentPod)
}

func findForwarded(t *testing.T, config *rest.Config) *Client {
	t.Helper()
	c, err := Find(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }) // through client-go's wrappers
	return c
}

// TestForwarded: an agent that only its pod reaches answers through the API server, for one connection a whole command.
func TestForwarded(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("through the API server", func(t *testing.T) {
		rollouts := []Rollout{web("web")}
		for i := range 500 { // more than one message
			rollouts = append(rollouts, Rollout{Namespace: "many", Name: "rollout-" + strconv.Itoa(i), Stages: web("web").Stages})
		}
		b := newBackend(rollouts...)
		n, data := startInPod(t, b)
		c := findForwarded(t, startAPIServer(t, data, n.on))
		if v, err := c.Version(t.Context()); err != nil || v.Agent != "v0.1.0" {
			t.Fatalf("%+v, %v", v, err)
		}
		if l, err := c.Rollouts(t.Context(), ""); err != nil || len(l) != 501 {
			t.Errorf("%d rollouts, %v", len(l), err)
		}
		var seen []string
		err := c.Watch(t.Context(), fleet.RolloutName{Namespace: "apps", Name: "web"}, func(r Rollout) (bool, error) {
			seen = append(seen, r.Stages[0].Phase)
			if len(seen) == 1 {
				b.set(inPhase("Complete"))
			}
			return r.Stages[0].Phase == "Complete", nil
		})
		if err != nil || strings.Join(seen, " ") != "Progressing Complete" {
			t.Errorf("watch: %v %v", seen, err)
		}
		if got := n.forwarded.Load(); got != 1 {
			t.Errorf("%d connections", got)
		}
	})
}

// TestForwardFails: who is asked what, and what for.
func TestForwardFails(t *testing.T) {
	says := func(err *apierrors.StatusError) func(*node, *http.ServeMux) {
		return func(_ *node, mux *http.ServeMux) {
			mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/pods/{pod}/portforward", func(w http.ResponseWriter, _ *http.Request) { say(w, err) })
		}
	}
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		serve func(*node, *http.ServeMux)
		kind  fleet.ErrorKind
		want  []string
	}{
		"no pod": {says(apierrors.NewNotFound(pods, agentPod)), fleet.Retryable, []string{
			`port-forward to pod flotilla-system/` + agentPod + `: pods "` + agentPod + `" not found (the agent that published it is gone, or is starting again: kubectl -n flotilla-system get pods)`,
		}},
		"forbidden": {says(apierrors.NewForbidden(schema.GroupResource{Resource: "pods/portforward"}, agentPod, errors.New(`User "ann" cannot create resource`))), fleet.Refused, []string{
			`User "ann" cannot create resource`, "ask for permission to get and create pods/portforward in flotilla-system",
		}},
		"unauthorized": {says(apierrors.NewUnauthorized("Unauthorized")), fleet.Refused, []string{"Unauthorized", "log in again"}},
		"pod is pending": {says(apierrors.NewBadRequest("pod " + agentPod + " does not have a host assigned")), fleet.Retryable, []string{
			"does not have a host assigned", "is it running? kubectl -n flotilla-system get pod " + agentPod,
		}},
		"container is not running": {func(n *node, mux *http.ServeMux) { n.agent = closedPort(t); n.on(mux) }, fleet.Retryable, []string{
			"of pod flotilla-system/" + agentPod + ": error forwarding port", "inside namespace", "starting again: kubectl -n flotilla-system get pod " + agentPod,
		}},
		"no WebSockets on the way": {func(_ *node, mux *http.ServeMux) {
			mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/pods/", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
		}, fleet.Retryable, []string{"502 Bad Gateway", "forward by hand and repeat: kubectl -n flotilla-system port-forward " + agentPod + " "}},
	} {
		n, data := startInPod(t, newBackend())
		c := findForwarded(t, startAPIServer(t, data, func(mux *http.ServeMux) { test.serve(n, mux) }))
		_, err := c.Version(t.Context())
		if err == nil || fleet.KindOf(err) != test.kind || !strings.HasPrefix(err.Error(), "agent at 127.0.0.1:"+n.port+" cannot be reached: ") {
			t.Errorf("%s: %v: %v", name, fleet.KindOf(err), err)
			continue
		}
		for _, want := range test.want {
			if strings.Count(err.Error(), want) != 1 {
				t.Errorf("%s: no %q once in\n%v", name, want, err)
			}
		}
	}
}

// TestForwardedPodIsChecked: what is published becomes no other path of the API.
func TestForwardedPodIsChecked(t *testing.T) {
	_, data := startInPod(t, newBackend())
	for _, pod := range []string{"..", "a/b", "a%2fb"} {
		data[endpointPod] = pod
		if _, err := Find(t.Context(), startAPIServer(t, data)); err == nil || fleet.KindOf(err) != fleet.Refused || !strings.Contains(err.Error(), "restart the agent") {
			t.Errorf("%s: %v", pod, err)
		}
	}
}

// TestForwardedToAStranger: the API server carries the connection and vouches for nothing.
func TestForwardedToAStranger(t *testing.T) {
	n, data := startInPod(t, newBackend())
	other, _ := startAgent(t, newBackend())
	n.agent = strings.TrimPrefix(other, "https://")
	_, err := findForwarded(t, startAPIServer(t, data, n.on)).Version(t.Context())
	if err == nil || !strings.Contains(err.Error(), "somebody else is at its address") {
		t.Errorf("another agent's certificate: %v", err)
	}
}

// TestForwardedByHand: a port that is forwarded already is used where nothing else works; not where the caller may not.
func TestForwardedByHand(t *testing.T) {
	address, ca := startAgent(t, newBackend())
	data := EndpointInPod(address, ca, agentPod)
	c := findForwarded(t, startAPIServer(t, data)) // 404, no Status
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("by hand: %v", err)
	}
	refuse := func(mux *http.ServeMux) {
		mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/pods/", func(w http.ResponseWriter, _ *http.Request) {
			say(w, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, agentPod, nil))
		})
	}
	if _, err := findForwarded(t, startAPIServer(t, data, refuse)).Version(t.Context()); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("forbidden: %v", err)
	}
}

// TestNotForwarded: an address that others reach is dialled, whatever pod it is in.
func TestNotForwarded(t *testing.T) {
	_, ca := startAgent(t, newBackend())
	n := &node{}
	data := EndpointInPod("https://192.0.2.1:4443", ca, agentPod)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := findForwarded(t, startAPIServer(t, data, n.on)).Version(ctx)
	if err == nil || strings.Contains(err.Error(), "port-forward") {
		t.Errorf("%v", err)
	}
	if _, is := EndpointInPod("https://127.0.0.1:1", ca, "")[endpointPod]; is {
		t.Error("a pod without a name")
	}
}

// TestForwardEndsWithTheCaller: an API server that says nothing holds nobody up.
func TestForwardEndsWithTheCaller(t *testing.T) {
	_, data := startInPod(t, newBackend())
	release := make(chan struct{})
	config := startAPIServer(t, data, func(mux *http.ServeMux) {
		mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/pods/", func(http.ResponseWriter, *http.Request) { <-release })
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := findForwarded(t, config).Version(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// FuzzDemux: whatever a node sends, what is read is the data channel's, up to the first thing that is wrong.
func FuzzDemux(f *testing.F) {
	f.Add([]byte{3, 0, 0x5b, 0x11, 3, 1, 0x5b, 0x11, 4, 0, 'a', 'b', 'c'})
	f.Add([]byte{5, 0, 1, 2, 'x', 'y', 0, 1, 0, 3, 1, 1, 2, 3, 1, 'n', 'o'})
	f.Add([]byte{2, 0, 1, 3, 0, 2, 'z', 2, 7, 7})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var messages [][]byte
		for len(raw) > 0 {
			n := min(int(raw[0]), len(raw)-1)
			messages, raw = append(messages, raw[1:1+n]), raw[1+n:]
		}
		want, ports := []byte{}, [2]int{}
		for _, m := range messages {
			if len(m) == 0 {
				continue
			}
			if m[0] > 1 {
				break
			}
			payload := m[1:]
			skipped := min(2-ports[m[0]], len(payload))
			ports[m[0]] += skipped
			if payload = payload[skipped:]; m[0] == 0 {
				want = append(want, payload...)
			} else if len(payload) > 0 {
				break
			}
		}
		d := &demux{
			next: func() (int, io.Reader, error) {
				if len(messages) == 0 {
					return 0, nil, io.ErrUnexpectedEOF
				}
				m := messages[0]
				messages = messages[1:]
				return websocket.BinaryMessage, bytes.NewReader(m), nil
			},
			remote: errors.New,
		}
		got, err := io.ReadAll(d)
		if err == nil || !bytes.Equal(got, want) {
			t.Fatalf("%q, want %q; %v", got, want, err)
		}
	})
}

// TestTunnel: deadlines hold, and a normal end is one.
func TestTunnel(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() { // until the listener is closed
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.CopyN(c, c, 3*64<<10); c.Close() }()
		}
	}()
	n := &node{port: "4443", agent: echo.Addr().String()}
	forward, err := forwarderTo(startAPIServer(t, nil, n.on), agentPod, n.port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := forward.forward(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := bytes.Repeat([]byte("abc"), 64<<10)
	sent := make(chan error, 1)
	go func() { _, err := conn.Write(want); sent <- err }()
	got, err := io.ReadAll(conn) // it ends with the echo
	if err != nil && !websocket.IsCloseError(err, websocket.CloseAbnormalClosure) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}

	if conn, err = forward.forward(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("read: %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("write: %v", err)
	}
	if conn.RemoteAddr() == nil || conn.LocalAddr() == nil {
		t.Error("no addresses")
	}
}
