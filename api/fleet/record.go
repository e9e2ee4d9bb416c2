// SPDX-License-Identifier: Apache-2.0

package fleet

// Kind of a record. The number says how two records of one writer, kind and key merge and how far they
// travel, so that a member that does not know a kind can still carry it (sets stay equal across versions):
// below 128 the first one said stays (milestones), from 128 on the last one said wins (registers); with
// 64 in it, every member carries it (see [Record.Scope]).
type Kind uint8

// The kinds of this version.
const (
	KindSeal    Kind = 1
	KindFact    Kind = 2
	KindCommand Kind = 3
	// KindProof shows that a member said two things in one position: see Proof.
	KindProof    Kind = 64
	KindRegister Kind = 128
	// KindFloor retires milestones of its writer: see Floor.
	KindFloor Kind = 129
	// KindRollup is what a zone tells the others in short: see Rollup.
	KindRollup Kind = 192
	// KindReach is where its writer can be dialled, from whatever zone.
	KindReach Kind = 193

	everywhere = 64
)

// IsRegister says that the latest record under a key replaces the older ones.
func (k Kind) IsRegister() bool { return k >= KindRegister }

func (k Kind) String() string {
	switch k {
	case KindSeal:
		return "seal"
	case KindFact:
		return "fact"
	case KindCommand:
		return "command"
	case KindProof:
		return "proof"
	case KindRegister:
		return "register"
	case KindFloor:
		return "floor"
	case KindRollup:
		return "rollup"
	case KindReach:
		return "reach"
	}
	return "unknown"
}

// Scope says who carries a record.
type Scope uint8

// The scopes, from wide to narrow.
const (
	// ScopeFleet: every member. Seals, commands, proofs, rollups, addresses.
	ScopeFleet Scope = iota
	// ScopeMilestones: the members of the writer's zone, and whoever decides by what they say. Facts.
	ScopeMilestones
	// ScopeDetail: the members of the writer's zone. Registers.
	ScopeDetail
)

// Scope of the record follows from its kind; a floor travels with what it retires.
func (r *Record) Scope() Scope {
	kind := r.Kind
	if kind == KindFloor {
		kind = floorOf(r.Key)
	}
	switch {
	case kind == KindSeal, kind == KindCommand, kind&everywhere != 0:
		return ScopeFleet
	case kind.IsRegister():
		return ScopeDetail
	}
	return ScopeMilestones
}

// Record is what travels: one signed statement of one writer. Nobody writes under another's ID.
type Record struct {
	// Fleet the record belongs to; a record of another fleet is refused.
	Fleet  Digest
	Writer MemberID
	// Epoch goes up with every start of the writer, Seq with every record in it.
	Epoch, Seq uint64
	Kind       Kind
	// Key within (writer, kind); at most MaxKey bytes.
	Key  string
	Body []byte
	Sig  []byte
}

// Newer says whether r was said after other by their one writer. Equal positions are ordered by
// digest, so that every member keeps the same one.
func (r *Record) Newer(other *Record) bool {
	if r.Epoch != other.Epoch {
		return r.Epoch > other.Epoch
	}
	if r.Seq != other.Seq {
		return r.Seq > other.Seq
	}
	a, b := r.Digest(), other.Digest()
	return string(a[:]) > string(b[:])
}

// FactKind is which milestone a fact states.
type FactKind uint8

// The milestones of one plan. Each is said once by a member about itself and never withdrawn.
const (
	// Accepted: this member took the plan as the one to act on.
	Accepted FactKind = 1
	// Started: from now on the payload may be in the cluster. Written to its own API before it is shared.
	Started FactKind = 2
	// Succeeded: applied, healthy, and healthy for minReadyTime (R4). Its slot is free.
	Succeeded FactKind = 3
	// Soaked: healthy for the stage's soak after that (R4). The next stage may count it.
	Soaked FactKind = 4
	// Failed: an attempt ended without success. It keeps its slot (R5).
	Failed FactKind = 5
	// GaveUp: no further attempt at this plan, for ever (R5).
	GaveUp FactKind = 6
	// Degraded: unhealthy after success; the plan's stop signal (R4).
	Degraded FactKind = 7
	// Yielded: left the plan before starting, for ever (R1). Excludes Started.
	Yielded FactKind = 8
)

var factNames = map[FactKind]string{
	Accepted: "Accepted", Started: "Started", Succeeded: "Succeeded", Soaked: "Soaked",
	Failed: "Failed", GaveUp: "GaveUp", Degraded: "Degraded", Yielded: "Yielded",
}

func (k FactKind) String() string {
	if s, ok := factNames[k]; ok {
		return s
	}
	return "Unknown"
}

// Fact is a milestone of one plan: a statement of a member about itself.
type Fact struct {
	Plan Digest
	Kind FactKind
	// Member is the record's writer; it is not encoded twice.
	Member MemberID
	// Detail for people and for Yielded's reason; at most MaxDetail bytes.
	Detail string
	// Time is the writer's wall clock in Unix seconds. People read it; nothing is decided by it.
	Time int64
}

// Verb of a command.
type Verb uint8

const (
	// Pause is a stop: nobody starts anything new of the rollout until it is lifted (R7).
	Pause Verb = 1
	// Resume is a go: it lifts the stops it names and no others (R7).
	Resume Verb = 2
	// Withdraw ends the rollout; its objects stay where they are (R1).
	Withdraw Verb = 3
)

func (v Verb) String() string {
	switch v {
	case Pause:
		return "Pause"
	case Resume:
		return "Resume"
	case Withdraw:
		return "Withdraw"
	}
	return "Unknown"
}

// Command is an operator's word, vouched by the member whose API it was given to.
type Command struct {
	Rollout RolloutName
	Verb    Verb
	// Lifts names what the command lifts: the stops, by record digest, of a Resume; the seals of a Withdraw.
	Lifts []Digest
	// Reason in the operator's words; at most MaxDetail bytes.
	Reason string
	// By is the writer; it is not encoded twice. ID is the record's digest.
	By MemberID
	ID Digest
	// Time is the writer's wall clock in Unix seconds, for people.
	Time int64
}

// AuthorGit is the author of every seal that comes from the fleet repository.
const AuthorGit = "git"

// Seal fixes one rollout at one point: what it says and whom it is for. Its two bodies, named by
// digest, travel as blobs. Seals of one rollout order by (Term, Number).
type Seal struct {
	Rollout RolloutName
	// Author is AuthorGit or the MemberID of the rollout's home.
	Author string
	// Term goes up when a rollout changes hands.
	Term uint64
	// Number is the author's own counter.
	Number uint64
	// CompileVersion of the rules that turn the seal into stages and ranks. Nobody acts on one it does not know.
	CompileVersion uint16
	// Spec and Members are the digests of the bodies.
	Spec, Members Digest
}

// Digest names the seal: it covers everything in it, and through the two digests the bodies.
func (s Seal) Digest() Digest { return DigestOf("flotilla.dev/seal", s.Encode()) }

// Content names what the seal says, without its position: two commits that say the same have one.
func (s Seal) Content() Digest {
	s.Term, s.Number = 0, 0
	return DigestOf("flotilla.dev/seal-content", s.Encode())
}

// Status is a register: what a member last said of itself in one rollout. It is for people and for
// news of a head; no gate reads it.
type Status struct {
	Rollout RolloutName `json:"rollout"`
	// Accepted is the newest revision verified here; others who do not have it look at their source.
	Accepted Revision `json:"accepted,omitempty"`
	// Seal and Plan that the member acts on.
	Seal Digest `json:"seal,omitzero"`
	Plan Digest `json:"plan,omitzero"`
	// Installed is the revision that runs here and is healed.
	Installed Revision `json:"installed,omitempty"`
	Phase     string   `json:"phase"`
	// Because is the decision's sentence, at most MaxDetail bytes.
	Because string `json:"because,omitempty"`
	Objects int    `json:"objects,omitempty"`
	// Time is the writer's wall clock in Unix seconds, for people.
	Time int64 `json:"time"`
}

// Heartbeat says that its writer is there and what it holds. Never stored, never reconciled.
type Heartbeat struct {
	Fleet  Digest
	Writer MemberID
	// Nonce is drawn at every start: two that alternate under one writer are two agents with one key.
	Nonce [16]byte
	// Counter goes up with every beat of one nonce.
	Counter uint64
	// Root is the digest of all records the writer holds; a receiver with another root reconciles.
	Root Digest
	// Time is the writer's wall clock in Unix seconds, for people.
	Time int64
	Sig  []byte
}
