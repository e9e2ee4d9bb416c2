// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// plansKept is how many plans are remembered: more than are acted on at a time.
const plansKept = 256

// Plans remembers compiled plans: a turn is taken for every fact that comes, and with a thousand targets a plan takes
// longer to compile than to decide by. Plans never change, so that any number of agents may share them.
type Plans struct {
	mu   sync.Mutex
	held map[fleet.Digest]*sequencer.Plan
}

// Compile is sequencer.Compile, once for each release.
func (p *Plans) Compile(s sequencer.Sealed, revision fleet.Revision) (*sequencer.Plan, error) {
	if p == nil {
		return sequencer.Compile(s, revision)
	}
	key := sequencer.Release{Seal: s.Digest(), Term: s.Term, Number: s.Number, Revision: revision}.Plan()
	p.mu.Lock()
	defer p.mu.Unlock()
	if plan := p.held[key]; plan != nil {
		return plan, nil
	}
	plan, err := sequencer.Compile(s, revision)
	if err != nil {
		return nil, err
	}
	if p.held == nil || len(p.held) >= plansKept {
		p.held = map[fleet.Digest]*sequencer.Plan{}
	}
	p.held[key] = plan
	return plan, nil
}
