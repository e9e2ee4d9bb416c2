// SPDX-License-Identifier: Apache-2.0

package sequencer

import "github.com/flotilla-dev/flotilla/api/fleet"

// count is the state of a gate or a window: have of need, how many of have left, and who is missing.
type count struct {
	open             bool
	have, need, left int
	missing, failed  []fleet.Name
}

func (c *count) lacks(p *Plan, m *fleet.Member, facts Facts) {
	c.missing = append(c.missing, m.Name)
	if has(facts, p.Digest, m.ID, fleet.Failed) || has(facts, p.Digest, m.ID, fleet.GaveUp) {
		c.failed = append(c.failed, m.Name)
	}
}

// gate of a stage (R3): all but the tolerated number have soaked, left or were removed, and at least MinSuccess really
// succeeded: a stage where nobody ran anything opens nothing. GaveUp is not counted, the tolerance
// already pays for it. Sets are counted; nothing is subtracted from a need.
func gate(p *Plan, s *Stage, facts Facts) count {
	c := count{need: len(s.Members) - s.Tolerance}
	for i := range s.Members {
		m := &s.Members[i]
		switch {
		case facts.Removed(m.ID): // whatever it said: its success is nobody's
			c.have++
			c.left++
		case has(facts, p.Digest, m.ID, fleet.Soaked):
			c.have++
		case has(facts, p.Digest, m.ID, fleet.Yielded):
			c.have++
			c.left++
		default:
			c.lacks(p, m, facts)
		}
	}
	earned := max(s.MinSuccess, MinSuccess)
	c.need = max(c.need, earned)
	c.open = c.have >= c.need && c.have-c.left >= earned
	return c
}

// window of a stage (R2): the member of rank i starts when at least i-N+1 of the lower ranks are
// settled. A cluster that gave up counts once, and only up to the tolerance. Whatever is lost or late
// on the way, at most N are in motion and at most N + tolerance started without success.
func window(p *Plan, s *Stage, facts Facts, rank int) count {
	c := count{need: rank - s.MaxConcurrency + 1}
	gaveUp := 0
	for i := range s.Members[:rank] {
		m := &s.Members[i]
		switch {
		case has(facts, p.Digest, m.ID, fleet.Succeeded), has(facts, p.Digest, m.ID, fleet.Soaked), has(facts, p.Digest, m.ID, fleet.Yielded),
			facts.Removed(m.ID):
			c.have++
		case has(facts, p.Digest, m.ID, fleet.GaveUp):
			gaveUp++
			c.lacks(p, m, facts)
		default:
			c.lacks(p, m, facts)
		}
	}
	c.have += min(gaveUp, s.Tolerance)
	c.open = c.have >= c.need
	return c
}

// degraded members of a stage.
func degraded(p *Plan, s *Stage, facts Facts) []fleet.Name {
	var out []fleet.Name
	for i := range s.Members {
		if isDegraded(p, facts, s.Members[i].ID) {
			out = append(out, s.Members[i].Name)
		}
	}
	return out
}

// isDegraded: unhealthy after its success, not lifted by a go, and not the word of a member that was removed.
func isDegraded(p *Plan, facts Facts, id fleet.MemberID) bool {
	fact, ok := facts.Fact(p.Digest, id, fleet.Degraded)
	return ok && !facts.Removed(id) && !lifts(facts.Commands(p.Rollout))[fact]
}
