// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
)

const userAgent = "flotilla"

// wire carries a conversation with git-upload-pack. What it gives to read has to be closed before the next call.
type wire interface {
	// greet gives what the server says first. It is nil where that is what it said last time.
	greet(ctx context.Context) (io.ReadCloser, error)
	// call sends a request and gives the answer.
	call(ctx context.Context, request []byte) (io.ReadCloser, error)
	// hangUp lets a connection go that serves one conversation only; a call makes a new one.
	hangUp()
}

// httpWire is smart http: each call is a request of its own.
type httpWire struct {
	client *http.Client
	url    string // of the repository, or where its server sent us
	kept   string // ETag of the references that are kept
	fresh  string // ETag of those that are being read
	status int    // of the last answer
}

func (w *httpWire) greet(ctx context.Context) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/info/refs?service="+service, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Git-Protocol", protocolTwo)
	if w.kept != "" {
		req.Header.Set("If-None-Match", w.kept)
	}
	res, err := w.do(req)
	if w.kept != "" && w.status == http.StatusNotModified {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if moved, ok := strings.CutSuffix(res.Request.URL.Path, "/info/refs"); ok && moved != "" {
		at := *res.Request.URL
		at.RawQuery, at.RawPath = "", strings.TrimSuffix(at.RawPath, "/info/refs")
		at.Path = moved
		w.url = at.String()
	}
	w.fresh = res.Header.Get("ETag")
	return res.Body, nil
}

func (w *httpWire) call(ctx context.Context, request []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/"+service, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	req.Header.Set("Accept", "application/x-git-upload-pack-result")
	if bytes.Contains(request[:min(len(request), 16)], []byte("command=")) {
		req.Header.Set("Git-Protocol", protocolTwo)
	}
	res, err := w.do(req)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (w *httpWire) do(req *http.Request) (*http.Response, error) {
	w.status = 0
	res, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	if w.status = res.StatusCode; w.status != http.StatusOK {
		// A short one is read to its end, so that the connection can be used again.
		io.Copy(io.Discard, io.LimitReader(res.Body, maxErrorBody)) //nolint:errcheck // it is thrown away
		res.Body.Close()
		return nil, fmt.Errorf("%s", res.Status)
	}
	return res, nil
}

func (w *httpWire) hangUp() {}

// sshWire is a git-upload-pack that runs on the server while we are connected.
type sshWire struct {
	addr    address
	connect func(context.Context) (*ssh.Client, error)

	client *ssh.Client
	in     io.WriteCloser
	out    io.Reader
	said   *notes
	ended  func() error
	ready  bool // the greeting was read, and a request may follow
}

func (w *sshWire) greet(ctx context.Context) (io.ReadCloser, error) {
	w.hangUp()
	client, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	w.client = client
	stop := w.until(ctx)
	if err := w.start(); err != nil {
		stop()
		w.hangUp()
		return nil, err
	}
	w.ready = true
	return w.answer(stop), nil
}

// until closes the connection when ctx ends, which ends what waits for it.
func (w *sshWire) until(ctx context.Context) (stop func() bool) {
	client := w.client
	return context.AfterFunc(ctx, func() { client.Close() }) //nolint:errcheck // whoever waits for it notices
}

func (w *sshWire) start() error {
	session, err := w.client.NewSession()
	if err != nil {
		return err
	}
	// Servers may take this or not; some never answer, so nobody waits.
	env := ssh.Marshal(struct{ Name, Value string }{"GIT_PROTOCOL", protocolTwo})
	if _, err := session.SendRequest("env", false, env); err != nil {
		return err
	}
	if w.in, err = session.StdinPipe(); err != nil {
		return err
	}
	if w.out, err = session.StdoutPipe(); err != nil {
		return err
	}
	w.said, w.ended = &notes{}, sync.OnceValue(session.Wait)
	session.Stderr = w.said
	path := w.addr.base.Path
	if strings.HasPrefix(path, "/~") {
		path = path[1:] // a home, as git has it
	}
	return session.Start(service + " '" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'")
}

func (w *sshWire) call(ctx context.Context, request []byte) (io.ReadCloser, error) {
	if !w.ready {
		first, err := w.greet(ctx)
		if err != nil {
			return nil, err
		}
		_, err = readGreeting(&bounded{from: first, left: maxAdvertisement, over: new(bool)})
		first.Close()
		if err != nil {
			return nil, err
		}
	}
	// In version 0 a connection is good for one request.
	w.ready = bytes.Contains(request[:min(len(request), 16)], []byte("command="))
	stop := w.until(ctx)
	if _, err := w.in.Write(request); err != nil {
		stop()
		w.hangUp()
		return nil, err
	}
	return w.answer(stop), nil
}

func (w *sshWire) hangUp() {
	w.ready = false
	if w.client != nil {
		w.client.Close() //nolint:errcheck // nothing is expected of it
		w.client = nil
	}
}

// answer reads what the server writes; at an end that comes too soon, it is what the server said of it.
func (w *sshWire) answer(stop func() bool) io.ReadCloser {
	out, said, ended := w.out, w.said, w.ended
	read := reading(func(b []byte) (int, error) {
		n, err := out.Read(b)
		if n == 0 && errors.Is(err, io.EOF) {
			ended() //nolint:errcheck // it ended; what it said is told
			if text := said.String(); text != "" {
				return 0, fmt.Errorf("%w: %s", errSaid, text)
			}
		}
		return n, err
	})
	return struct {
		io.Reader
		io.Closer
	}{read, closing(func() error { stop(); return nil })}
}

type closing func() error

func (c closing) Close() error { return c() }

// notes keeps the beginning of what a server says beside its answer.
type notes struct {
	mu  sync.Mutex
	buf []byte
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if room := 1024 - len(n.buf); room > 0 {
		n.buf = append(n.buf, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return source.Printable(strings.Join(strings.Fields(string(n.buf)), " "), 200)
}

// connector connects to an ssh server with a login.
func (r *remote) connector(login access.Login) func(context.Context) (*ssh.Client, error) {
	return func(ctx context.Context) (*ssh.Client, error) { return login.SSH(ctx, r.addr.base, r.roots) }
}
