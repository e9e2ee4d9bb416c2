// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Channels of a forwarded port. Both begin with the port's number, in two bytes.
const (
	channelData  = 0
	channelError = 1

	portBytes = 2
)

// maxChunk of one message, in bytes, is one frame of client-go's connections. Runtimes take the first byte of every
// frame for a channel, so a message must not be cut into several.
const maxChunk = 32 << 10

// maxRemoteError of what a node says about a port, in bytes.
const maxRemoteError = 4 << 10

// closePatience with a peer that is told that the connection ends.
const closePatience = time.Second

// demux is the receiving side of a forwarded port.
type demux struct {
	// next message.
	next func() (kind int, message io.Reader, err error)
	// remote makes an error of what the node says.
	remote func(message string) error

	message io.Reader // of the data channel, begun
	ports   [2]int    // bytes of the port's number that came, by channel
}

// Read is in io.Reader: the data channel.
func (d *demux) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if d.message == nil {
			if err := d.open(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := d.message.Read(p)
		if errors.Is(err, io.EOF) { // of the message
			d.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open the next message; it stays open where it is data.
func (d *demux) open() error {
	kind, message, err := d.next()
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed) && closed.Code == websocket.CloseNormalClosure:
		return io.EOF
	case err != nil:
		return err
	case kind != websocket.BinaryMessage:
		return fmt.Errorf("forwarded port: a message of kind %d, which is not binary", kind)
	}
	var channel [1]byte
	if _, err := io.ReadFull(message, channel[:]); err != nil {
		return notEmpty(err)
	}
	if channel[0] > channelError {
		return fmt.Errorf("forwarded port: a message on channel %d, which was not asked for", channel[0])
	}
	came := &d.ports[channel[0]]
	n, err := io.CopyN(io.Discard, message, int64(portBytes-*came))
	*came += int(n)
	if err != nil {
		return notEmpty(err)
	}
	if channel[0] == channelData {
		d.message = message
		return nil
	}
	said, err := io.ReadAll(io.LimitReader(message, maxRemoteError))
	if err != nil || len(said) == 0 {
		return err
	}
	return d.remote(string(said))
}

// notEmpty keeps a failure; that a message has ended is none.
func notEmpty(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// tunnel is a forwarded port. It is in net.Conn, but for this: a read that has run out of time is the last one.
type tunnel struct {
	demux
	ws *websocket.Conn

	writing sync.Mutex
	mu      sync.Mutex
	until   time.Time // to write
}

func newTunnel(ws *websocket.Conn, remote func(string) error) *tunnel {
	return &tunnel{demux: demux{next: ws.NextReader, remote: remote}, ws: ws}
}

// Write is in net.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	until := t.until
	t.mu.Unlock()
	if err := t.ws.SetWriteDeadline(until); err != nil {
		return 0, err
	}
	written := 0
	for chunk := range slices.Chunk(p, maxChunk) {
		if err := t.ws.WriteMessage(websocket.BinaryMessage, append([]byte{channelData}, chunk...)); err != nil {
			return written, err
		}
		written += len(chunk)
	}
	return written, nil
}

// Close is in net.Conn. The node is told, as far as it listens.
func (t *tunnel) Close() error {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = t.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closePatience)) // it may be gone
	return t.ws.Close()
}

// LocalAddr is in net.Conn.
func (t *tunnel) LocalAddr() net.Addr { return t.ws.LocalAddr() }

// RemoteAddr is in net.Conn: the API server's.
func (t *tunnel) RemoteAddr() net.Addr { return t.ws.RemoteAddr() }

// SetDeadline is in net.Conn.
func (t *tunnel) SetDeadline(until time.Time) error {
	return errors.Join(t.SetReadDeadline(until), t.SetWriteDeadline(until))
}

// SetReadDeadline is in net.Conn.
func (t *tunnel) SetReadDeadline(until time.Time) error { return t.ws.SetReadDeadline(until) }

// SetWriteDeadline is in net.Conn.
func (t *tunnel) SetWriteDeadline(until time.Time) error {
	t.mu.Lock()
	t.until = until
	t.mu.Unlock()
	return t.ws.NetConn().SetWriteDeadline(until) // of a write that is under way
}
