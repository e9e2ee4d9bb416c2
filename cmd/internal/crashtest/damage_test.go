// SPDX-License-Identifier: Apache-2.0

package crashtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// held are all records of a node, by key.
func held(node *mesh.Node) map[string]fleet.Record {
	all := map[string]fleet.Record{}
	node.View(func(set *lattice.Set) {
		for r := range set.All() {
			all[fmt.Sprint(r.Writer, r.Kind, r.Key)] = r
		}
	})
	return all
}

// say facts and registers of a life.
func say(t *testing.T, node *mesh.Node, life int) {
	t.Helper()
	for i := range 10 {
		fact := fleet.Fact{Plan: fleet.DigestOf("damage", []byte{byte(life), byte(i)}), Kind: fleet.Started}
		_, err := node.Publish(fleet.KindFact, fleet.FactKey(fact.Plan, fact.Kind), fact.Encode())
		must(t, err)
		_, err = node.Publish(fleet.KindRegister, fmt.Sprint("register ", i), fmt.Appendf(nil, "life %d", life))
		must(t, err)
	}
}

// TestDamagedFileComesBack: a member whose file was damaged, lost or emptied while it was down gets back from the other one
// all that it knew, what it said itself included; what it says at once, before it has heard of that, wins. What happened
// is said.
func TestDamagedFileComesBack(t *testing.T) {
	lives := 0
	network := meshtest.New(t, 2, func(c *mesh.Config) {
		// A machine is down for a while before it is up again.
		down := time.Duration(lives) * time.Hour
		c.Now = func() time.Time { return time.Now().Add(down) }
	})
	say(t, network.Node(0), 0)
	say(t, network.Node(1), 0)
	blob, err := network.Node(0).PutBlob([]byte("the body of a seal"))
	must(t, err)
	network.AwaitEqualRoots()
	network.AwaitConnected()
	_, err = network.Node(1).FetchBlob(t.Context(), blob) // a blob is where somebody wanted it
	must(t, err)

	aside := 0
	for _, damage := range []struct {
		name      string
		do        func([]byte) []byte
		recovered bool
		// quarantined says that records are set apart.
		quarantined bool
	}{
		{"meta pages zeroed", func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b }, true, false},
		{"cut short", func(b []byte) []byte { return b[:3*os.Getpagesize()] }, true, false},
		{"overwritten", func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }, true, false},
		{"emptied", func([]byte) []byte { return nil }, false, false},
		{"records with flipped bits", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("life "), []byte("lifE ")) }, false, true},
	} {
		t.Run(damage.name, func(t *testing.T) {
			lives++
			before := held(network.Node(1))
			network.Stop(0)
			file := network.File(0)
			content, err := os.ReadFile(file)
			must(t, err)
			must(t, os.WriteFile(file, damage.do(content), 0o600))
			network.Start(0)
			opened := network.Store(0).Opened()
			if opened.Recovered != damage.recovered || opened.Recovered != (opened.Detail != "") {
				t.Errorf("opened %+v", opened)
			}
			if damage.recovered {
				aside++
			}
			if got := network.Node(0).Stats().Quarantined; got > 0 != damage.quarantined {
				t.Errorf("%d records set apart", got)
			}
			say(t, network.Node(0), lives)

			meshtest.Await(t, "equal roots, with what was said before and since", func() bool {
				now := held(network.Node(1))
				return network.Node(0).Root() == network.Node(1).Root() && len(now) == len(before)+10
			})
			now := held(network.Node(0))
			for at, was := range before {
				is := now[at]
				own := was.Writer == network.Member(0).ID && was.Kind.IsRegister()
				if !own && is.Digest() != was.Digest() || own && string(is.Body) != fmt.Sprint("life ", lives) {
					t.Errorf("%s %q of %s is %q, was %q", was.Kind, was.Key, was.Writer, is.Body, was.Body)
				}
			}
			if content, err := network.Node(0).FetchBlob(t.Context(), blob); err != nil || string(content) != "the body of a seal" {
				t.Errorf("blob %q, %v", content, err)
			}
			for i := range 2 {
				if self := network.Node(i).Self(); self.Duplicate || self.Forked {
					t.Errorf("member %d: duplicate %v, forked %v", i, self.Duplicate, self.Forked)
				}
			}
			if files, _ := filepath.Glob(file + ".corrupt-*"); len(files) != aside {
				t.Errorf("set aside: %v, want %d", files, aside)
			}
		})
	}
}
