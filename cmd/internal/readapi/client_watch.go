// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// ErrGone ends a watch whose rollout is not known to the agent any more.
var ErrGone = errors.New("the rollout is gone")

// silence after which a watch is taken for dead: three missed beats.
const silence = 3 * watchBeat

// Watch calls seen with the rollout at once and after each change, until seen says that it is done
// (nil), seen fails (its error), the context ends (its cause) or the stream does: a retryable error,
// after which the caller may begin again.
func (c *Client) Watch(ctx context.Context, name fleet.RolloutName, seen func(Rollout) (done bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	response, err := c.send(ctx, pathOf(name)+"/watch", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	quiet := time.AfterFunc(silence, func() {
		cancel(fmt.Errorf("agent at %s said nothing for %s", response.Request.URL.Host, silence))
	})
	defer quiet.Stop()
	var own error
	err = readEvents(response.Body, func() { quiet.Reset(silence) }, func(r Rollout) (done bool, err error) {
		done, own = seen(r)
		return done, own
	})
	switch cause := context.Cause(ctx); {
	case err == nil, own != nil:
		return own
	case cause != nil:
		return cause
	}
	return fmt.Errorf("watch %s: %w", name, err)
}

// readEvents reads server-sent events as the server writes them: an optional kind, one line of data.
func readEvents(r io.Reader, heard func(), seen func(Rollout) (bool, error)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	kind := ""
	for lines.Scan() {
		heard()
		line := lines.Bytes()
		switch {
		case len(line) == 0:
			kind = ""
		case bytes.HasPrefix(line, []byte("event: ")):
			kind = string(line[len("event: "):])
		case bytes.HasPrefix(line, []byte("data: ")):
			if done, err := event(kind, line[len("data: "):], seen); done || err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func event(kind string, data []byte, seen func(Rollout) (bool, error)) (done bool, err error) {
	switch kind {
	case "":
	case "gone":
		return false, ErrGone
	case "refused":
		return false, refusal(ReasonForbidden, "the permission to watch was taken away", "")
	default:
		return false, nil // of a newer agent
	}
	var r Rollout
	if err := json.Unmarshal(data, &r); err != nil {
		return false, err
	}
	return seen(r)
}
