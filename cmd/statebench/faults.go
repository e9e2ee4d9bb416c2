// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	crdtpb "github.com/ipfs/go-ds-crdt/pb"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
)

const (
	owner    = 0
	bystand  = 1
	stranger = 2
	// ownKey is the key that somebody owns.
	ownKey = "status"
)

// readOurs gives what a member reads under the owner's key.
func readOurs(o *ours, replica int) []byte {
	var body []byte
	o.members[replica].node.View(func(set *lattice.Set) {
		if r, ok := set.Get(o.members[owner].member.ID, fleet.KindRegister, ownKey); ok {
			body = r.Body
		}
	})
	return body
}

// called names a value in an outcome.
func called(value []byte, names map[string][]byte) string {
	for name, v := range names {
		if bytes.Equal(v, value) {
			return name
		}
	}
	return "nothing"
}

// runStranger lets somebody write a key that is another one's.
func (b *bench) runStranger(ctx context.Context) {
	if !b.wants("stranger") {
		return
	}
	b.try(ctx, "ours", "a stranger, not on the roster", b.strangerOurs)
	b.try(ctx, "ours", "a forger, on the roster", b.forgerOurs)
	b.try(ctx, "crdt", "a stranger", b.strangerCRDT)
}

// strangerOurs runs a node that has itself on its roster, and is on nobody else's.
func (b *bench) strangerOurs(ctx context.Context, folder string) error {
	o := newOurs(folder, 3, newWatch(), nil)
	o.stranger = stranger
	value, _ := payload()
	for i := range o.members {
		if err := o.start(ctx, i); err != nil {
			return errors.Join(err, o.close())
		}
	}
	o.introduce()
	if err := o.put(ctx, owner, ownKey, value); err != nil {
		return errors.Join(err, o.close())
	}
	forged, _ := payload()
	if err := o.put(ctx, stranger, ownKey, forged); err != nil {
		return errors.Join(err, o.close())
	}
	refused := func() uint64 {
		return o.members[owner].node.Stats().ConnectionsRefused + o.members[bystand].node.Stats().ConnectionsRefused
	}
	if err := until(ctx, settleLimit, "ours: the stranger at the door", func() bool { return refused() > 0 }); err != nil {
		return errors.Join(err, o.close())
	}
	if err := until(ctx, settleLimit, "ours: the owner's word", func() bool { return readOurs(o, bystand) != nil }); err != nil {
		return errors.Join(err, o.close())
	}
	names := map[string][]byte{"the owner's value": value, "THE STRANGER'S": forged}
	result := row{Part: "stranger", System: "ours, not on the roster", Nodes: 3}
	result.say("connections refused: %d", refused())
	result.say("the owner reads %s, the bystander %s", called(readOurs(o, owner), names), called(readOurs(o, bystand), names))
	b.record(result)
	return o.close()
}

// forgerOurs runs a member that has a record in the owner's name on its own disk, signed with its own key, with
// a position above all of the owner's.
func (b *bench) forgerOurs(ctx context.Context, folder string) error {
	o := newOurs(folder, 3, newWatch(), nil)
	value, _ := payload()
	forged, _ := payload()
	r := fleet.Record{Fleet: oursFleet, Epoch: 1 << 62, Seq: 1, Kind: fleet.KindRegister, Key: ownKey, Body: forged}
	if err := r.Sign(o.members[stranger].key); err != nil {
		return err
	}
	r.Writer = o.members[owner].member.ID
	if err := fill(o.members[stranger].path, []fleet.Record{r}); err != nil {
		return err
	}
	for i := range o.members {
		if err := o.start(ctx, i); err != nil {
			return errors.Join(err, o.close())
		}
	}
	if err := o.put(ctx, owner, ownKey, value); err != nil {
		return errors.Join(err, o.close())
	}
	o.introduce()
	refused := func() uint64 {
		return o.members[owner].node.Stats().BadSignature + o.members[bystand].node.Stats().BadSignature
	}
	err := until(ctx, settleLimit, "ours: the forged record refused", func() bool { return refused() > 0 && readOurs(o, bystand) != nil })
	if err != nil {
		return errors.Join(err, o.close())
	}
	names := map[string][]byte{"the owner's value": value, "THE FORGER'S": forged}
	result := row{Part: "stranger", System: "ours, a member that forges", Nodes: 3}
	result.say("records refused by their signature: %d", refused())
	result.say("the owner reads %s, the bystander %s", called(readOurs(o, owner), names), called(readOurs(o, bystand), names))
	b.record(result)
	return o.close()
}

func (b *bench) strangerCRDT(ctx context.Context, folder string) error {
	w := newWatch()
	c, err := startCRDTs(ctx, folder, 3, w, crdtOptions{})
	if err != nil {
		return err
	}
	write := func(replica int) ([]byte, error) {
		value, token := payload()
		a := w.expect(token, 3)
		if err := c.put(ctx, replica, ownKey, value); err != nil {
			return nil, err
		}
		return value, a.wait(ctx, settleLimit)
	}
	value, err := write(owner)
	if err != nil {
		return errors.Join(err, c.close())
	}
	forged, err := write(stranger)
	if err != nil && !errors.Is(err, errLate) {
		return errors.Join(err, c.close())
	}
	names := map[string][]byte{"its own value": value, "THE STRANGER'S": forged}
	result := row{Part: "stranger", System: "go-ds-crdt", Nodes: 3}
	for replica, name := range []string{"the owner", "the bystander"} {
		held, err := c.get(ctx, replica, ownKey)
		if err != nil {
			return errors.Join(err, c.close())
		}
		result.say("%s reads %s", name, called(held, names))
	}
	b.record(result)
	return c.close()
}

// runReimage takes the owner's disk away and lets it write before it has heard anybody.
func (b *bench) runReimage(ctx context.Context) {
	if !b.wants("reimage") {
		return
	}
	b.try(ctx, "ours", "re-imaged owner", b.reimageOurs)
	b.try(ctx, "crdt", "re-imaged owner", b.reimageCRDT)
}

const (
	earlierWrites = 20
	// reimageLimit is how long the last word may take to win: more than two rounds of everything.
	reimageLimit = 12 * time.Second
)

// reimageOurs sets the owner's clock back as well.
func (b *bench) reimageOurs(ctx context.Context, folder string) error {
	back := time.Duration(0)
	w := newWatch()
	o, err := startOurs(ctx, folder, 3, w, func(i int, c *mesh.Config) {
		if i == owner {
			by := back
			c.Now = func() time.Time { return time.Now().Add(-by) }
		}
	})
	if err != nil {
		return err
	}
	old, err := earlier(ctx, o, w)
	if err != nil {
		return errors.Join(err, o.close())
	}
	if err := errors.Join(o.stop(owner), os.Remove(o.members[owner].path)); err != nil {
		return errors.Join(err, o.close())
	}
	back = time.Hour
	if err := o.start(ctx, owner); err != nil {
		return errors.Join(err, o.close())
	}
	value, _ := payload()
	if err := o.put(ctx, owner, ownKey, value); err != nil {
		return errors.Join(err, o.close())
	}
	begin := time.Now()
	o.introduce()
	err = until(ctx, reimageLimit, "", func() bool {
		for i := range o.members {
			if !bytes.Equal(readOurs(o, i), value) {
				return false
			}
		}
		return true
	})
	if err != nil && !errors.Is(err, errLate) {
		return errors.Join(err, o.close())
	}
	names := map[string][]byte{"the new value": value, "THE OLD": old}
	result := row{Part: "reimage", System: "ours, clock an hour back", Nodes: 3}
	result.say("the owner reads %s, the others %s and %s, after %.2f s", called(readOurs(o, 0), names),
		called(readOurs(o, 1), names), called(readOurs(o, 2), names), time.Since(begin).Seconds())
	b.record(result)
	return o.close()
}

// earlier is what the owner wrote before it lost its disk; it gives the last value.
func earlier(ctx context.Context, r replicas, w *watch) ([]byte, error) {
	var old []byte
	var a *awaited
	for range earlierWrites {
		value, token := payload()
		old, a = value, w.expect(token, 3)
		if err := r.put(ctx, owner, ownKey, value); err != nil {
			return nil, err
		}
	}
	return old, a.wait(ctx, settleLimit)
}

func (b *bench) reimageCRDT(ctx context.Context, folder string) error {
	w := newWatch()
	c, err := startCRDTs(ctx, folder, 3, w, crdtOptions{})
	if err != nil {
		return err
	}
	old, err := earlier(ctx, c, w)
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := errors.Join(c.stop(owner), os.RemoveAll(c.nodes[owner].path), c.start(ctx, owner)); err != nil {
		return errors.Join(err, c.close())
	}
	value, _ := payload()
	if err := c.put(ctx, owner, ownKey, value); err != nil {
		return errors.Join(err, c.close())
	}
	pause(ctx, reimageLimit)
	names := map[string][]byte{"the new value": value, "THE OLD": old}
	result := row{Part: "reimage", System: "go-ds-crdt", Nodes: 3}
	for replica, name := range []string{"the owner", "the second", "the third"} {
		held, err := c.get(ctx, replica, ownKey)
		if err != nil {
			return errors.Join(err, c.close())
		}
		result.say("%s reads %s", name, called(held, names))
	}
	result.say("%s later", reimageLimit)
	b.record(result)
	return c.close()
}

// runStall has one replica promise what it never hands over.
func (b *bench) runStall(ctx context.Context) {
	if !b.wants("stall") {
		return
	}
	b.try(ctx, "ours", "a mute member", b.stallOurs)
	b.try(ctx, "crdt", "a head that nobody has", func(ctx context.Context, folder string) error { return b.stallCRDT(ctx, folder, true) })
	b.try(ctx, "crdt", "a head that nobody has, empty stores", func(ctx context.Context, folder string) error { return b.stallCRDT(ctx, folder, false) })
}

const (
	// stallTimeout is go-ds-crdt's DAGSyncerTimeout here, so that a run ends; its default is 5 min.
	stallTimeout = 5 * time.Second
	stallLimit   = 3 * stallTimeout
)

// stallOurs has a member that accepts every stream and never says a word. It is connected with everyone, also
// with one that comes later with an empty disk.
func (b *bench) stallOurs(ctx context.Context, folder string) error {
	const late, mute = 2, 3
	w := newWatch()
	o := newOurs(folder, 4, w, nil)
	for i := range late {
		if err := o.start(ctx, i); err != nil {
			return errors.Join(err, o.close())
		}
	}
	o.introduce()
	h, err := muteHost(o.members[mute].key)
	if err != nil {
		return errors.Join(err, o.close())
	}
	end := func(err error) error { return errors.Join(err, h.Close(), o.close()) }
	if err := errors.Join(callOn(ctx, h, o, 0), callOn(ctx, h, o, 1), o.awaitConnected(ctx)); err != nil {
		return end(err)
	}
	result := row{Part: "stall", System: "ours, a mute member", Nodes: 4}
	value, token := payload()
	a := w.expect(token, 2)
	begin := time.Now()
	if err := o.put(ctx, owner, ownKey, value); err != nil {
		return end(err)
	}
	if err := a.wait(ctx, stallLimit); errors.Is(err, errLate) {
		result.say("a write of another one was not visible after %s", stallLimit)
	} else if err != nil {
		return end(err)
	} else {
		result.say("a write of another one was visible after %.3f s", time.Since(begin).Seconds())
	}
	begin = time.Now()
	if err := errors.Join(o.start(ctx, late), callOn(ctx, h, o, late)); err != nil {
		return end(err)
	}
	o.introduce()
	err = until(ctx, stallLimit, "", func() bool { return bytes.Equal(readOurs(o, late), value) })
	if errors.Is(err, errLate) {
		result.say("one with an empty disk did not have it after %s", stallLimit)
	} else if err != nil {
		return end(err)
	} else {
		result.say("one with an empty disk had it after %.3f s", time.Since(begin).Seconds())
	}
	b.record(result)
	return end(nil)
}

// muteHost takes every stream of our protocols and says nothing.
func muteHost(key ed25519.PrivateKey) (host.Host, error) {
	private, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(libp2p.Identity(private), libp2p.Transport(tcp.NewTCPTransport), libp2p.NoListenAddrs,
		libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		return nil, err
	}
	h.SetStreamHandlerMatch("/flotilla/", func(id protocol.ID) bool { return strings.HasPrefix(string(id), "/flotilla/") },
		func(network.Stream) {})
	return h, nil
}

func callOn(ctx context.Context, h host.Host, o *ours, replica int) error {
	for _, text := range o.members[replica].member.Addresses {
		target, err := peer.AddrInfoFromString(text + "/p2p/" + string(o.members[replica].member.ID))
		if err != nil {
			return err
		}
		return h.Connect(ctx, *target)
	}
	return fmt.Errorf("ours: member %d has no address", replica)
}

// stallCRDT broadcasts a head whose block nobody has, as a writer does that dies at once; then another one writes.
func (b *bench) stallCRDT(ctx context.Context, folder string, warm bool) error {
	w := newWatch()
	c, err := newCRDTs(folder, 3, w, crdtOptions{timeout: stallTimeout})
	if err != nil {
		return err
	}
	for i := range c.nodes {
		if err := c.start(ctx, i); err != nil {
			return errors.Join(err, c.close())
		}
	}
	system := "go-ds-crdt, empty stores"
	err = c.awaitConnected(ctx)
	if err == nil && warm {
		system = "go-ds-crdt, stores in use"
		err = c.warm(ctx, 3)
	}
	if err != nil {
		return errors.Join(err, c.close())
	}
	message, err := deadHead()
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := errors.Join(c.nodes[2].topic(ctx, message), c.stop(2)); err != nil {
		return errors.Join(err, c.close())
	}
	pause(ctx, 500*time.Millisecond)
	value, token := payload()
	a := w.expect(token, 2)
	begin := time.Now()
	if err := c.put(ctx, 1, ownKey, value); err != nil {
		return errors.Join(err, c.close())
	}
	result := row{Part: "stall", System: system, Nodes: 3}
	if err := a.wait(ctx, stallLimit); errors.Is(err, errLate) {
		result.say("a write of another one was not visible after %s", stallLimit)
	} else if err != nil {
		return errors.Join(err, c.close())
	} else {
		result.say("a write of another one was visible after %.1f s", time.Since(begin).Seconds())
	}
	result.say("DAGSyncerTimeout %s here; the default is 5 min", stallTimeout)
	b.record(result)
	return c.close()
}

// deadHead is a broadcast as go-ds-crdt makes it, of a block that there is not.
func deadHead() ([]byte, error) {
	noise := make([]byte, 32)
	if _, err := rand.Read(noise); err != nil {
		return nil, err
	}
	sum, err := multihash.Sum(noise, multihash.SHA2_256, -1)
	if err != nil {
		return nil, err
	}
	head := cid.NewCidV1(cid.DagProtobuf, sum)
	return proto.Marshal(&crdtpb.CRDTBroadcast{Heads: []*crdtpb.Head{{Cid: head.Bytes()}}})
}
