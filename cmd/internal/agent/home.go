// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Home writes down, for the fleet, what people write on this member: rollouts that live here, and
// stops that were set here.
type Home struct {
	Self     fleet.MemberID
	Roster   func() []fleet.Member
	Promises turn.Promises
	Ledger   *MeshLedger
	// PutBlob stores a body where the others can fetch it.
	PutBlob func([]byte) (fleet.Digest, error)
	Clock   func() fleet.Moment
}

// Seal a rollout that lives on this member, if it says something new. One signed intent with a single
// writer: no two seals compete (R1). The number is this member's own and is written down first.
func (h *Home) Seal(ctx context.Context, name fleet.RolloutName, spec v1alpha1.FleetRolloutSpec) error {
	promise, err := h.Promises.Load(ctx, name)
	if err != nil {
		return fmt.Errorf("read own promise: %w", err)
	}
	chosen, err := selection.Select(spec.Targets, h.Roster())
	if err != nil {
		return err
	}
	position := sequencer.Position{Author: string(h.Self)}
	if held := promise.Authored; held != nil {
		position.Term, position.Number = held.Term, held.Number
	}
	sealed, err := sequencer.Seal(name, position, spec, chosen.Members)
	if err != nil {
		return err
	}
	if held := promise.Authored; held != nil && held.Content == sealed.Content() {
		return h.publishSeal(ctx, sealed, held.Record)
	}
	position.Number++
	if sealed, err = sequencer.Seal(name, position, spec, chosen.Members); err != nil {
		return err
	}
	if _, err := sequencer.Compile(sealed, "sealed"); err != nil {
		return err // a spec that nobody can act on is not sealed; the last one stays
	}
	record, err := h.Ledger.Prepare(fleet.KindSeal, sealed.SealKey(), sealed.Encode())
	if err != nil {
		return err
	}
	promise.Authored = &turn.Authored{Term: position.Term, Number: position.Number, Content: sealed.Content(), Record: record.Encode()}
	if err := h.Promises.Save(ctx, promise); err != nil {
		return fmt.Errorf("write own promise: %w", err)
	}
	return h.publishSeal(ctx, sealed, promise.Authored.Record)
}

// publishSeal with its bodies, unless the fleet's state has it: it may have been lost with a disk.
func (h *Home) publishSeal(ctx context.Context, sealed sequencer.Sealed, encoded []byte) error {
	if held, ok := h.Ledger.Seals(sealed.Rollout)[string(h.Self)]; ok && held.Digest() == sealed.Digest() {
		return nil
	}
	spec, members, err := sealed.Bodies()
	if err != nil {
		return err
	}
	for _, body := range [][]byte{spec, members} {
		if _, err := h.PutBlob(body); err != nil {
			return fmt.Errorf("store a body of the seal: %w", err)
		}
	}
	record, err := fleet.DecodeRecord(encoded)
	if err != nil {
		return fmt.Errorf("own seal: %w", err)
	}
	return h.Ledger.Commit(ctx, record)
}

// Withdraw the rollout that lived here: a positive statement, so every member lets go of it. Its
// objects stay where they are (R12).
func (h *Home) Withdraw(ctx context.Context, name fleet.RolloutName) error {
	seal, ok := h.Ledger.Seals(name)[string(h.Self)]
	if !ok || withdrawn(h.Ledger.Commands(name), seal) {
		return nil
	}
	err := h.command(ctx, fleet.Command{
		Rollout: name, Verb: fleet.Withdraw, Lifts: []fleet.Digest{seal.Digest()},
		Reason: "deleted at its home", Time: h.Clock().Wall.Unix(),
	})
	if err != nil {
		return err
	}
	promise, err := h.Promises.Load(ctx, name)
	if err != nil || promise.Authored == nil {
		return err
	}
	promise.Authored.Content = fleet.Digest{} // written again, it is a new seal whatever it says
	return h.Promises.Save(ctx, promise)
}

// Stop or lift this member's own stop, as the object's owner wants it now; reason "" wants none (R7).
func (h *Home) Stop(ctx context.Context, name fleet.RolloutName, reason string) error {
	promise, err := h.Promises.Load(ctx, name)
	if err != nil {
		return fmt.Errorf("read own promise: %w", err)
	}
	switch held := promise.Stop; {
	case reason != "" && held == nil:
		return h.stop(ctx, promise, reason)
	case reason == "" && held != nil:
		return h.lift(ctx, promise)
	case held != nil:
		return h.uphold(ctx, promise, reason)
	}
	return nil
}

// stop is written down before it is said: a stop that nobody remembers could never be lifted.
func (h *Home) stop(ctx context.Context, promise turn.Promise, reason string) error {
	command := fleet.Command{Rollout: promise.Rollout, Verb: fleet.Pause, Reason: reason, Time: h.Clock().Wall.Unix()}
	record, err := h.prepare(command)
	if err != nil {
		return err
	}
	promise.Stop = &turn.OwnStop{Reason: reason, Record: record.Encode()}
	if err := h.Promises.Save(ctx, promise); err != nil {
		return fmt.Errorf("write own promise: %w", err)
	}
	return h.Ledger.Commit(ctx, record)
}

// lift what this member stopped: its pause, and its own sickness in the plan that it acts on. The go is
// said before it is forgotten here: said twice it does no harm, never said it would hold the fleet for ever.
func (h *Home) lift(ctx context.Context, promise turn.Promise) error {
	record, err := fleet.DecodeRecord(promise.Stop.Record)
	if err != nil {
		return fmt.Errorf("own stop: %w", err)
	}
	lifts := []fleet.Digest{record.Digest()}
	if id, sick := h.Ledger.Fact(promise.Accepted.Plan(), h.Self, fleet.Degraded); sick {
		lifts = append(lifts, id)
	}
	if err := h.command(ctx, fleet.Command{Rollout: promise.Rollout, Verb: fleet.Resume, Lifts: lifts, Time: h.Clock().Wall.Unix()}); err != nil {
		return err
	}
	promise.Stop = nil
	if err := h.Promises.Save(ctx, promise); err != nil {
		return fmt.Errorf("write own promise: %w", err)
	}
	return nil
}

// uphold this member's stop: it is said again where the fleet's state has lost it. Where this member itself has ended
// it, by a go after which it died before it could write that down, or by a floor, what is wanted now is another stop.
// A go of somebody else stands.
func (h *Home) uphold(ctx context.Context, promise turn.Promise, reason string) error {
	record, err := fleet.DecodeRecord(promise.Stop.Record)
	if err != nil {
		return fmt.Errorf("own stop: %w", err)
	}
	command, err := fleet.DecodeCommand(&record)
	if err != nil {
		return fmt.Errorf("own stop: %w", err)
	}
	commands := h.Ledger.Commands(command.Rollout)
	floor := h.Ledger.Floor(h.Self, fleet.KindCommand)
	ended := floor.Retires(&record) || slices.ContainsFunc(commands, func(c fleet.Command) bool { return c.By == h.Self && lifts(c, command.ID) })
	switch {
	case ended:
		return h.stop(ctx, promise, reason)
	case slices.ContainsFunc(commands, func(c fleet.Command) bool { return c.ID == command.ID }):
		return nil
	}
	return h.Ledger.Commit(ctx, record)
}

func (h *Home) command(ctx context.Context, c fleet.Command) error {
	record, err := h.prepare(c)
	if err != nil {
		return err
	}
	return h.Ledger.Commit(ctx, record)
}

// prepare under a key of its own: each command is a new one, whatever was said before.
func (h *Home) prepare(c fleet.Command) (fleet.Record, error) {
	now := h.Clock()
	key := fmt.Sprintf("%s/%s/%d", c.Rollout, c.Verb, now.Wall.UnixNano())
	return h.Ledger.Prepare(fleet.KindCommand, key, c.Encode())
}
