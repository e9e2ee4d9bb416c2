// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// binaryEnv names the devfleet binary that the end-to-end tests start; .ci/devfleet prints one.
const binaryEnv = "FLOTILLA_DEVFLEET"

// installation is a devfleet binary, a folder for members, and folders that must stay empty.
type installation struct {
	binary, dir, home string
}

func newInstallation(t *testing.T) installation {
	t.Helper()
	binary := os.Getenv(binaryEnv)
	if binary == "" {
		t.Skip("starts real control planes: name the binary with " + binaryEnv + "=$(.ci/devfleet)")
	}
	return installation{binary: binary, dir: filepath.Join(t.TempDir(), "fleet"), home: t.TempDir()}
}

// command is devfleet with these arguments, with a home, a working directory and a place for temporary files that are watched.
func (in installation) command(args ...string) *exec.Cmd {
	c := exec.Command(in.binary, append(args, "--dir", in.dir)...)
	c.Dir = in.home
	c.Env = []string{"HOME=" + in.home, "TMPDIR=" + in.home, "PATH=" + os.Getenv("PATH")}
	// A test that is killed takes its clusters with it.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// try runs a command to its end and returns all that it printed.
func (in installation) try(args ...string) (string, error) {
	out, err := in.command(args...).CombinedOutput()
	return string(out), err
}

func (in installation) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := in.try(args...)
	if err != nil {
		t.Fatalf("devfleet %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// running is a devfleet that stays until the test ends.
type running struct {
	process *os.Process
	said    *transcript
	ended   chan struct{}
}

// start runs a command that stays, and returns once it printed a line that starts with these words.
func (in installation) start(t *testing.T, awaited string, args ...string) running {
	t.Helper()
	c, said, ended := in.command(args...), &transcript{}, make(chan struct{})
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	r := running{process: c.Process, said: said, ended: ended}
	eventually(t, func() bool {
		if r.hasEnded() {
			t.Fatalf("devfleet %s ended: %s", strings.Join(args, " "), said)
		}
		return strings.Contains("\n"+said.String(), "\n"+awaited)
	})
	return r
}

func (r running) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// transcript is what a running command printed so far.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.buf.Write(p)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.buf.String()
}

func clientFor(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if config.Insecure || len(config.CAData) == 0 {
		t.Fatalf("kubeconfig %s does not check the server's certificate", kubeconfig)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestEndToEnd takes one cluster through all that can happen to it.
func TestEndToEnd(t *testing.T) {
	in := newInstallation(t)
	topology := filepath.Join(t.TempDir(), "two.txt")
	if err := os.WriteFile(topology, []byte("one region=eu -> two\ntwo region=us\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := in.try("up", "-f", topology, "--member", "three"); err == nil || !strings.Contains(out, "only: one, two") {
		t.Fatalf("a member that is not in the topology: %v, %s", err, out)
	}
	up := in.start(t, "devfleet ready", "up", "-f", topology, "--member", "one")
	f, err := newFolder(in.dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := strings.TrimSpace(in.must(t, "kubeconfig", "one"))
	client := clientFor(t, kubeconfig)

	t.Run("cluster", func(t *testing.T) { testCluster(t, client) })
	t.Run("service account", func(t *testing.T) { testServiceAccount(t, in, client) })
	t.Run("one process at a time", func(t *testing.T) { testRefusals(t, in, topology) })
	t.Run("frozen", func(t *testing.T) { testFrozen(t, in, f, client) })
	uid := namespaceUID(t, client, "kept")
	t.Run("killed", func(t *testing.T) { testKilled(t, in, f, up) })
	in.start(t, "devfleet member one ready", "member", "--name", "one")
	if again := namespaceUID(t, client, "kept"); again != uid {
		t.Errorf("namespace kept is %s, was %s", again, uid)
	}
	t.Run("started again", func(t *testing.T) { testStartedAgain(t, in, f, client) })
	if up.hasEnded() {
		t.Fatalf("up ended with its member: %s", up.said)
	}
	t.Run("parent killed", func(t *testing.T) { testParentKilled(t, in, topology) })
	t.Run("nothing elsewhere", func(t *testing.T) {
		found, err := os.ReadDir(in.home)
		if err != nil || len(found) > 0 {
			t.Fatalf("written outside --dir: %v, %v", found, err)
		}
	})
}

func testRefusals(t *testing.T, in installation, topology string) {
	for _, args := range [][]string{{"member", "--name", "one"}, {"up", "-f", topology}} {
		out, err := in.try(args...)
		if err == nil || !strings.Contains(out, "already running") || !strings.Contains(out, "devfleet down") {
			t.Errorf("devfleet %s: %v, %s", args[0], err, out)
		}
	}
	if out := in.must(t, "status"); !strings.Contains(out, "one     ready") || strings.Contains(out, "two") {
		t.Errorf("status:\n%s", out)
	}
}

// A frozen site comes back as it was: its node is not lost, its pods stay ready.
func testFrozen(t *testing.T, in installation, f folder, client kubernetes.Interface) {
	if ran, err := f.signal(syscall.SIGSTOP); !ran || err != nil {
		t.Fatal(ran, err)
	}
	eventually(t, func() bool { return strings.Contains(in.must(t, "status"), "frozen") })
	if ran, err := f.signal(syscall.SIGCONT); !ran || err != nil {
		t.Fatal(ran, err)
	}
	eventually(t, func() bool { return strings.Contains(in.must(t, "status"), "ready") })
	if err := nodeReady(t.Context(), client); err != nil {
		t.Error(err)
	}
}

func testKilled(t *testing.T, in installation, f folder, up running) {
	if ran, err := f.signal(syscall.SIGKILL); !ran || err != nil {
		t.Fatal(ran, err)
	}
	eventually(t, func() bool { return strings.Contains(up.said.String(), "member one died: signal: killed") })
	if out := in.must(t, "status"); !strings.Contains(out, "one     dead") {
		t.Errorf("status:\n%s", out)
	}
	p, _, err := f.readPorts()
	if err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp4", loopback(p.API))
	if err != nil {
		t.Fatal(err)
	}
	out, err := in.try("member", "--name", "one")
	if err == nil || !strings.Contains(out, squatter.Addr().String()) || !strings.Contains(out, "ports.json") {
		t.Errorf("port taken: %v, %s", err, out)
	}
	if err := squatter.Close(); err != nil {
		t.Fatal(err)
	}
}

// The same client, and so the same address and keys, works after a start on the same data.
func testStartedAgain(t *testing.T, in installation, f folder, client kubernetes.Interface) {
	good, err := client.AppsV1().Deployments("default").Get(t.Context(), "good", metav1.GetOptions{})
	if err != nil || good.Status.AvailableReplicas != 3 {
		t.Errorf("deployment good: %v, %v", good.Status, err)
	}
	applyDeployment(t, client, deployment{name: "later", image: "app:2"})
	awaitAvailable(t, client, "later", 3)
	if out := in.must(t, "down"); out != "member one stopped\n" {
		t.Errorf("down printed %q", out)
	}
	if out := in.must(t, "status"); !strings.Contains(out, "one     stopped") {
		t.Errorf("status:\n%s", out)
	}
	if pid, err := f.holder(); pid != 0 || err != nil {
		t.Errorf("still run by %d, %v", pid, err)
	}
	if out := in.must(t, "down"); out != "" {
		t.Errorf("a second down printed %q", out)
	}
}

func testParentKilled(t *testing.T, in installation, topology string) {
	up := in.start(t, "devfleet ready", "up", "-f", topology)
	for _, name := range []string{"one", "two"} {
		if f, err := newFolder(in.dir, name); err != nil {
			t.Fatal(err)
		} else if pid, err := f.holder(); pid == 0 || err != nil {
			t.Fatalf("%s runs as %d, %v", name, pid, err)
		}
	}
	if err := up.process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		awaitHolder(t, folder{dir: in.dir, name: name}, 0)
	}
}

// namespaceUID creates the namespace if it does not exist.
func namespaceUID(t *testing.T, client kubernetes.Interface, name string) string {
	t.Helper()
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespaceOf(name), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	ns, err := client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(ns.UID)
}
