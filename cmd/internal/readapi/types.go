// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// APIVersion is the first part of every path. Within it, fields are only ever added.
const APIVersion = "v1"

// Version of who answers.
type Version struct {
	// API is APIVersion.
	API string `json:"api"`
	// Member that answers.
	Member fleet.Name `json:"member"`
	// Agent's version, and that of the cluster it is in.
	Agent      string `json:"agent"`
	Kubernetes string `json:"kubernetes,omitempty"`
}

// List is what every list endpoint answers.
type List[T any] struct {
	Items []T `json:"items"`
}

// Rollout is all that one member knows of a rollout.
type Rollout struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Origin is the home: the fleet repository's URL, or the member it was written on.
	Origin string `json:"origin,omitempty"`
	// Revision of the payload that goes through the fleet, or went through it last; Subject is the
	// first line of its commit message, where it is known.
	Revision fleet.Revision `json:"revision,omitempty"`
	Subject  string         `json:"subject,omitempty"`
	// Author of the seal: "git", or the member that sealed it.
	Author string `json:"author,omitempty"`
	// Plan and Seal by digest; none where the rollout has no plan yet.
	Plan fleet.Digest `json:"plan,omitzero"`
	Seal fleet.Digest `json:"seal,omitzero"`
	// Number orders the seals of one author.
	Number uint64 `json:"number,omitempty"`
	// SeenFrom is the member that says all this.
	SeenFrom fleet.Name `json:"seenFrom"`
	Stages   []Stage    `json:"stages,omitempty"`
	// Reports of the zones whose milestones this member does not hold.
	Reports []ZoneReport `json:"reports,omitempty"`
	// Members by stage and rank. Left out in lists.
	Members []Member `json:"members,omitempty"`
	// Stops in force: who paused it, and why.
	Stops      []Stop      `json:"stops,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// FullName is where the rollout is found in every member's API.
func (r *Rollout) FullName() fleet.RolloutName {
	return fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}
}

// Condition of a type, or one of status Unknown where there is none.
func (r *Rollout) Condition(kind string) Condition {
	for _, c := range r.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{Type: kind, Status: string(metav1.ConditionUnknown)}
}

// Stage of the plan, in counts.
type Stage struct {
	Name string `json:"name"`
	// Phase: Pending, Waiting, Progressing, Soaking, Complete or Failed.
	Phase string `json:"phase"`
	// Clusters of the stage; Succeeded includes those that soak or were sick after their success.
	Clusters    int `json:"clusters"`
	Succeeded   int `json:"succeeded"`
	Progressing int `json:"progressing"`
	Failed      int `json:"failed"`
	Degraded    int `json:"degraded"`
	// Ineligible: those that left the plan, or were removed for saying two things in one position.
	Ineligible int `json:"ineligible"`
	// MaxConcurrency and MaxUnavailable as numbers of clusters.
	MaxConcurrency int `json:"maxConcurrency"`
	MaxUnavailable int `json:"maxUnavailable"`
	// SoakSeconds that its clusters stay healthy before the next stage begins.
	SoakSeconds float64 `json:"soakSeconds"`
	// Because is the decision's sentence, while it waits or has failed.
	Because string `json:"because,omitempty"`
	// Names of at most 5 clusters that failed or that it waits for.
	Names []fleet.Name `json:"names,omitempty"`
	// ByReport counts its clusters in zones whose milestones this member does not hold, as those zones tell it. It is
	// hearsay, and in none of the counts above; nothing is decided by it.
	ByReport *Reported `json:"byReport,omitempty"`
}

// Reported counts clusters by what their zones tell.
type Reported struct {
	Clusters    int `json:"clusters"`
	Succeeded   int `json:"succeeded"`
	Progressing int `json:"progressing"`
	Failed      int `json:"failed"`
	Degraded    int `json:"degraded"`
	Ineligible  int `json:"ineligible"`
}

// ZoneReport is what a zone tells of a rollout: hearsay, for people.
type ZoneReport struct {
	Zone string `json:"zone"`
	// Clusters of the plan in the zone.
	Clusters int `json:"clusters"`
	// Failing are some of those that failed or are unhealthy after their success.
	Failing []fleet.Name `json:"failing,omitempty"`
	// Time of the report, on the clock of the member that wrote it.
	Time time.Time `json:"time,omitzero"`
}

// Member of a plan, as seen from SeenFrom.
type Member struct {
	Name fleet.Name `json:"name"`
	// Stage and Rank in it; rank 0 may start first.
	Stage string `json:"stage"`
	Rank  int    `json:"rank"`
	// State by the facts held: Pending, Progressing, Soaking, Complete, Failed, Ineligible, Degraded or Removed.
	State string `json:"state"`
	// Installed revision runs there, Accepted is the newest one verified there, by its own last word.
	Installed fleet.Revision `json:"installed,omitempty"`
	Accepted  fleet.Revision `json:"accepted,omitempty"`
	// Because is the decision's sentence about this member, from the facts held here.
	Because string `json:"because,omitempty"`
	// Phase and Says are the member's own last word, which may be older or newer than what is held here.
	Phase string `json:"phase,omitempty"`
	Says  string `json:"says,omitempty"`
	// Presence is what the member that answers makes of that: one of the Presence words.
	Presence string `json:"presence,omitempty"`
	// HeardSeconds since its last beat or heartbeat; absent where none was heard since this agent began.
	HeardSeconds *float64 `json:"heardSeconds,omitempty"`
	// Self: the member that answers.
	Self bool `json:"self,omitempty"`
	// Facts it signed about this plan, oldest first.
	Facts []Fact `json:"facts,omitempty"`
}

// Presence words. Each is one member's judgement of another, by the heartbeats that are due from it; none says that
// something failed.
const (
	// PresenceHeard: a beat or a heartbeat of it came lately.
	PresenceHeard = "Heard"
	// PresenceQuiet: none came for three of its intervals. No news.
	PresenceQuiet = "Quiet"
	// PresenceDoubted: members next to it lost it, and nothing came of it since.
	PresenceDoubted = "Doubted"
	// PresenceUnheard: none came since this agent began, and none need have.
	PresenceUnheard = "Unheard"
	// PresenceAlone is said of the member that answers: it hears nobody.
	PresenceAlone = "Alone"
)

// Fact is a milestone that a member stated about itself.
type Fact struct {
	Kind string `json:"kind"`
	// Time on the member's own clock, for people.
	Time   time.Time `json:"time,omitzero"`
	Detail string    `json:"detail,omitempty"`
}

// Event is one line of a rollout's past: a milestone that a member signed, or somebody's command.
type Event struct {
	// Time on the clock of whoever signed it.
	Time time.Time `json:"time,omitzero"`
	// Member that signed it; of a command the one whose operator gave it.
	Member fleet.Name `json:"member"`
	// Stage of the member, where the plan's stages are known here.
	Stage string `json:"stage,omitempty"`
	// Kind: a milestone as in Fact, or Pause, Resume, Withdraw.
	Kind string `json:"kind"`
	// Detail of the milestone, or the reason of the command.
	Detail string `json:"detail,omitempty"`
	// Plan and Revision that a milestone is about.
	Plan     fleet.Digest   `json:"plan,omitzero"`
	Revision fleet.Revision `json:"revision,omitempty"`
	// ID is the digest of the signed record.
	ID fleet.Digest `json:"id,omitzero"`
}

// IsCommand says that it is somebody's word and no milestone.
func (e *Event) IsCommand() bool { return e.Plan.IsZero() }

// Events are a page of a rollout's past, oldest first.
type Events struct {
	Items []Event `json:"items"`
	// Continue asks for the next page, as the parameter of that name; absent on the last one.
	Continue string `json:"continue,omitempty"`
	// SeenFrom is the member whose records were read.
	SeenFrom fleet.Name `json:"seenFrom"`
}

// PastRelease is one release of a rollout that the member knows of.
type PastRelease struct {
	Revision fleet.Revision `json:"revision,omitempty"`
	// Subject is the first line of its commit's message, where it is known.
	Subject string       `json:"subject,omitempty"`
	Plan    fleet.Digest `json:"plan,omitzero"`
	// Seal and Number of it, where they are known.
	Seal   fleet.Digest `json:"seal,omitzero"`
	Number uint64       `json:"number,omitempty"`
	// Current: it goes through the fleet, or went through it last.
	Current bool `json:"current,omitempty"`
	// Accepted and Started: when the first member did. Completed: when the last one was through with it,
	// by a success, by giving up or by leaving; absent where somebody is not, or where it is not known
	// how many there are.
	Accepted  time.Time `json:"accepted,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Completed time.Time `json:"completed,omitzero"`
	// Clusters of the plan; 0 where its seal is not held here any more.
	Clusters int `json:"clusters,omitempty"`
	// Reached counts those that started it, or carried it over; Succeeded and Failed those of them that did so last.
	Reached   int `json:"reached"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// Releases of a rollout, newest first.
type Releases struct {
	Items []PastRelease `json:"items"`
	// SeenFrom is the member whose records were read.
	SeenFrom fleet.Name `json:"seenFrom"`
}

// Object that a rollout has in the cluster of the member that answers: its name and whether it is well,
// never what is in it.
type Object struct {
	Group   string `json:"group,omitempty"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
	// Resource is the kind as RBAC names it.
	Resource  string `json:"resource,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Health: Healthy, NotReady or Failed; absent where the member has not looked yet.
	Health string `json:"health,omitempty"`
	// Because says what is not as it should be.
	Because string `json:"because,omitempty"`
	// Left by an earlier release: no longer in the payload and still in the cluster.
	Left bool `json:"left,omitempty"`
}

// Health of an object.
const (
	ObjectHealthy = "Healthy"
	// ObjectNotReady: not there yet; nothing says that it will not be.
	ObjectNotReady = "NotReady"
	// ObjectFailed: it says that it will not get there by itself.
	ObjectFailed = "Failed"
)

// Objects are a page of what a rollout has in the cluster of the member that answers.
type Objects struct {
	// Member whose cluster it is.
	Member fleet.Name `json:"member"`
	// Revision and Plan that were delivered last.
	Revision fleet.Revision `json:"revision,omitempty"`
	Plan     fleet.Digest   `json:"plan,omitzero"`
	// Ready of Delivered objects were well when this member looked last; Because names the first that were not.
	Ready     int      `json:"ready"`
	Delivered int      `json:"delivered"`
	Because   string   `json:"because,omitempty"`
	Items     []Object `json:"items"`
	// Total of the objects, with those that earlier releases left; Hidden of them are of kinds and namespaces where whoever asks may get none.
	Total  int `json:"total"`
	Hidden int `json:"hidden,omitempty"`
	// Continue asks for the next page; absent on the last one.
	Continue string `json:"continue,omitempty"`
}

// Stop in force.
type Stop struct {
	// By is the member whose operator said it.
	By     fleet.Name `json:"by"`
	Reason string     `json:"reason,omitempty"`
	// Time on that member's clock, for people.
	Time time.Time `json:"time,omitzero"`
	// ID is the digest that a go names to lift it.
	ID fleet.Digest `json:"id,omitzero"`
}

// Condition of the object, as it is on the member that answers.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// FleetMember is one member as another one knows it.
type FleetMember struct {
	Name   fleet.Name        `json:"name"`
	ID     fleet.MemberID    `json:"id"`
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Self: the member that answers.
	Self bool `json:"self,omitempty"`
	// Connected: a connection is open now.
	Connected bool `json:"connected"`
	// Presence is what the member that answers makes of that: one of the Presence words.
	Presence string `json:"presence,omitempty"`
	// HeardSeconds since its last beat or heartbeat; absent where none was heard since this agent began.
	HeardSeconds *float64 `json:"heardSeconds,omitempty"`
	// Hearsay: nothing was heard of it itself since this agent began. A neighbour gave a heartbeat that it had signed, and
	// heard of it HeardSeconds ago or longer.
	Hearsay bool `json:"hearsay,omitempty"`
	// Duplicate: two agents seem to use its key.
	Duplicate bool `json:"duplicate,omitempty"`
	// SameState: its last heartbeat held the same records as this member does.
	SameState bool `json:"sameState"`
	// DiffersSeconds that what it holds has been another than what this member holds; absent while it is the same.
	DiffersSeconds float64 `json:"differsSeconds,omitempty"`
	// Root names all that it holds, as far as it was heard.
	Root fleet.Digest `json:"root,omitzero"`
	// Anchor: others dial it.
	Anchor bool `json:"anchor,omitempty"`
	// Doubted: members next to it lost it, and nothing has been heard of it since.
	Doubted bool `json:"doubted,omitempty"`
	// Forked: it said two things in one position; what it says counts for nothing.
	Forked            bool   `json:"forked,omitempty"`
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	AgentVersion      string `json:"agentVersion,omitempty"`
}

// Explanation says why one member may or may not go now.
type Explanation struct {
	Member    fleet.Name `json:"member"`
	Namespace string     `json:"namespace"`
	Rollout   string     `json:"rollout"`
	// SeenFrom is the member whose facts were read.
	SeenFrom fleet.Name `json:"seenFrom"`
	// Verdict: Wait, Hold, Go, Done or Out; State as in Member.
	Verdict string `json:"verdict"`
	State   string `json:"state,omitempty"`
	// Sentence is the decision's own.
	Sentence string `json:"sentence"`
	// Runs is the revision that is installed and healed there; Revision the one that it is about.
	Runs     fleet.Revision `json:"runs,omitempty"`
	Revision fleet.Revision `json:"revision,omitempty"`
	// Checks in the order they are made.
	Checks []Check `json:"checks"`
	// Helps: what a person can do.
	Helps []string `json:"helps,omitempty"`
}

// Check is one thing that must hold.
type Check struct {
	OK   bool   `json:"ok"`
	Name string `json:"name"`
	Text string `json:"text"`
	// Since when, on the clock of whoever said it; absent where nobody did.
	Since time.Time `json:"since,omitzero"`
}

// Problem is the body of every answer that is not 200.
type Problem struct {
	Error string `json:"error"`
	// Hint says what a person can do; empty where the error says it all.
	Hint string `json:"hint,omitempty"`
}
