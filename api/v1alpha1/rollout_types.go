// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// FleetRollout brings one payload to many clusters, stage by stage.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=frl,categories=flotilla
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Stage",type=string,JSONPath=`.status.summary.stage`
// +kubebuilder:printcolumn:name="Clusters",type=string,JSONPath=`.status.summary.clusters`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.summary.failed`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.summary.revision`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Here",type=string,priority=1,JSONPath=`.status.here.phase`
// +kubebuilder:printcolumn:name="Status",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="at most 63 characters, because it becomes a label value on every object it delivers"
type FleetRollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec FleetRolloutSpec `json:"spec"`
	// +kubebuilder:default:={"observedGeneration":-1}
	Status FleetRolloutStatus `json:"status,omitempty"`
}

// FleetRolloutList is a list of FleetRollouts.
// +kubebuilder:object:root=true
type FleetRolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FleetRollout `json:"items"`
}

// FleetRolloutSpec follows the pipeline: each part is one of its stages.
// +kubebuilder:validation:XValidation:rule="!has(self.source.helm) || !has(self.specialize) || !has(self.specialize.helm) || !has(self.specialize.helm.chart)",message="the source is already a chart (spec.source.helm); keep one of the two",fieldPath=".specialize"
type FleetRolloutSpec struct {
	// Source says where the payload comes from.
	// +required
	Source Source `json:"source"`
	// Targets says which members get it. Required: there is no implicit "all".
	// +required
	Targets Targets `json:"targets"`
	// Specialize says how the payload differs from member to member.
	// +optional
	Specialize *Specialize `json:"specialize,omitempty"`
	// Strategy says in which order, how many at once, and what must hold before it goes on.
	// Left out: automatic stages (the members labelled ring=canary, else one; then 10%, 50%, the rest).
	// +optional
	Strategy *Strategy `json:"strategy,omitempty"`
	// Delivery says how the objects are applied and kept.
	// +kubebuilder:default={}
	Delivery Delivery `json:"delivery,omitempty"`
	// Suspend: no cluster starts anything new. What runs is still healed.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// Source of the payload.
// +kubebuilder:validation:XValidation:rule="has(self.git) != has(self.helm)",message="name exactly one of git, helm"
// +kubebuilder:validation:XValidation:rule="has(self.git) || !has(self.path) || self.path == './'",message="only git has paths",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="has(self.git) || !has(self.ignore)",message="only git has files to ignore",fieldPath=".ignore"
type Source struct {
	// Git repository that holds it.
	// +optional
	Git *GitSource `json:"git,omitempty"`
	// Helm chart that is the payload, from a repository of charts. Its values are in spec.specialize.helm.
	// +optional
	Helm *HelmSource `json:"helm,omitempty"`
	// Path of the payload in the source. May hold ${CLUSTER}, ${ZONE} and ${LABEL_<key>} of the member
	// (in a key, every character but letters, digits and _ becomes _): ./overlays/${LABEL_region}.
	// +kubebuilder:default="./"
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.contains('..')",message="a path inside the source: no leading '/' and no '..'"
	// +optional
	Path string `json:"path,omitempty"`
	// Interval between looks at the source. A head that any member sees is known to all at once, so this may be long.
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="at least 10s; members tell each other of a new head, so polling faster only costs the server"
	// +optional
	Interval *Duration `json:"interval,omitempty"`
	// Timeout of one look.
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="at least 1s"
	// +optional
	Timeout *Duration `json:"timeout,omitempty"`
	// SecretRef names the Secret, in the rollout's namespace of each member, that opens the source. Its keys:
	// username and password, or bearerToken; ca.crt for the server's certificate; tls.crt and tls.key for the
	// client's own; for ssh identity, known_hosts (required) and, where the key has one, its passphrase in password.
	// It is read as spec.delivery.serviceAccountName, and sent to the host of the URL and no other but, of a
	// registry, to the token server that it names, over https.
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`
	// ProxySecretRef names the Secret with the proxy to go through: address (http, https or socks5 URL), and username and password if it asks.
	// +optional
	ProxySecretRef *LocalReference `json:"proxySecretRef,omitempty"`
	// Ignore takes files out of the payload, in .gitignore's words, after those of .sourceignore files. Without either, nothing is ignored.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Ignore string `json:"ignore,omitempty"`
}

// LocalReference names an object in the rollout's own namespace.
type LocalReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
}

// GitSource is a repository and what of it to follow.
type GitSource struct {
	// URL of the repository: https, http, or ssh as ssh://git@host/path.
	// +kubebuilder:validation:Pattern=`^(https?|ssh)://.+$`
	// +kubebuilder:validation:MaxLength=2048
	// +required
	URL string `json:"url"`
	// +kubebuilder:default:={"branch":"main"}
	// +optional
	Ref *GitRef `json:"ref,omitempty"`
	// RecurseSubmodules takes the files of submodules in, at the commits that the payload names. Those on the
	// repository's own host are read with its credentials, others without any.
	// +optional
	RecurseSubmodules bool `json:"recurseSubmodules,omitempty"`
	// SparseCheckout leaves these folders, and what is below them, and takes everything else out of the payload.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +listType=set
	// +optional
	SparseCheckout []string `json:"sparseCheckout,omitempty"`
}

// GitRef is what to follow: a branch, the highest tag of a range of versions, or any other reference; or what to stay at: a tag or a commit.
// +kubebuilder:validation:XValidation:rule="[has(self.branch), has(self.tag), has(self.semver), has(self.name), has(self.commit)].filter(x, x).size() == 1",message="name exactly one of branch, tag, semver, name, commit"
type GitRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +optional
	Branch string `json:"branch,omitempty"`
	// Tag to stay at. A tag that is moved afterwards is not followed, as a version once delivered stays what it was:
	// name the new commit, or another tag.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +optional
	Tag string `json:"tag,omitempty"`
	// SemVer follows the highest tag in a range of versions: ">=1.2.0 <2.0.0", "1.x". A leading v in tags is allowed.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +optional
	SemVer string `json:"semver,omitempty"`
	// Name of any reference in full: refs/heads/main, refs/pull/420/head.
	// +kubebuilder:validation:Pattern=`^refs/.+$`
	// +kubebuilder:validation:MaxLength=255
	// +optional
	Name string `json:"name,omitempty"`
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{40}$`
	// +optional
	Commit string `json:"commit,omitempty"`
}

// HelmSource is a chart and which of its versions to follow. The revision is the version and the digest of its archive.
type HelmSource struct {
	// URL of the repository that has the chart: https or http of one with an index.yaml, or oci://registry/path.
	// +kubebuilder:validation:Pattern=`^(https?|oci)://.+$`
	// +kubebuilder:validation:MaxLength=2048
	// +required
	URL string `json:"url"`
	// Chart is its name in the repository.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._/-]+$`
	// +kubebuilder:validation:MaxLength=253
	// +required
	Chart string `json:"chart"`
	// Version to stay at (1.4.2), or a range of which the highest is followed (1.x).
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +required
	Version string `json:"version"`
}

// ClusterSelector: every field given must hold.
// +kubebuilder:validation:XValidation:rule="!has(self.names) || !(has(self.matchLabels) || has(self.matchExpressions))",message="names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)"
type ClusterSelector struct {
	metav1.LabelSelector `json:",inline"`
	// Names of members; ["*"] is all of them.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	// +listType=set
	// +optional
	Names []string `json:"names,omitempty"`
}

// Targets of a rollout.
// +kubebuilder:validation:XValidation:rule="has(self.names) || (has(self.matchLabels) && self.matchLabels.size() > 0) || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",message="say which members: matchLabels, matchExpressions or names; for every member of the fleet write names: [\"*\"]"
type Targets struct {
	ClusterSelector `json:",inline"`
	// Exclude takes members out again.
	// +optional
	Exclude *ClusterSelector `json:"exclude,omitempty"`
}

// Strategy: how a release moves through the fleet. Its pacing fields are the defaults of its stages.
// +kubebuilder:validation:XValidation:rule="self.type == 'Staged' || !has(self.stages)",message="only with type: Staged; AllAtOnce has no stages",fieldPath=".stages"
// +kubebuilder:validation:XValidation:rule="self.type == 'Staged' || !has(self.maxConcurrency)",message="AllAtOnce starts every cluster at once; for a limit use type: Staged with one stage",fieldPath=".maxConcurrency"
// +kubebuilder:validation:XValidation:rule="!has(self.stages) || self.stages.filter(s, !(has(s.names) || has(s.matchLabels) || has(s.matchExpressions) || has(s.size))).size() == 0 || self.stages.filter(s, !(has(s.names) || has(s.matchLabels) || has(s.matchExpressions) || has(s.size))).size() == 1 && !(has(self.stages[self.stages.size()-1].names) || has(self.stages[self.stages.size()-1].matchLabels) || has(self.stages[self.stages.size()-1].matchExpressions) || has(self.stages[self.stages.size()-1].size))",message="only the last stage may leave out matchLabels, matchExpressions, names and size (it takes all that is left)",fieldPath=".stages"
type Strategy struct {
	// +kubebuilder:validation:Enum=Staged;AllAtOnce
	// +kubebuilder:default=Staged
	// +optional
	Type string `json:"type,omitempty"`
	// Pacing defaults for every stage.
	Pacing `json:",inline"`
	// Stages in order. A member is in the first stage that takes it; what none takes is in a last stage "rest".
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Stages []Stage `json:"stages,omitempty"`
}

// Pacing of a stage.
type Pacing struct {
	// MaxConcurrency: clusters of a stage that have started and not succeeded. Number or percent of the stage, rounded up. Default 25%.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",message="a number of at least 1, or 1% to 100%; to stop a rollout use suspend or 'flotilla pause'"
	// +optional
	MaxConcurrency *intstr.IntOrString `json:"maxConcurrency,omitempty"`
	// MaxUnavailable: clusters of a stage that may lack success (failed, offline, not done) when the next stage begins.
	// Number or percent of the stage, rounded down. Default 0.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 : self.matches('^([0-9]|[1-9][0-9])%$')",message="a number, or 0% to 99%; 100% would let every cluster fail"
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// MinReadyTime: how long a cluster must stay healthy to succeed. It keeps its place in maxConcurrency meanwhile. Default 1m.
	// +optional
	MinReadyTime *Duration `json:"minReadyTime,omitempty"`
	// Soak: how long the clusters of a stage must stay healthy, after success, before the next stage begins. Frees maxConcurrency. Default 0s.
	// +optional
	Soak *Duration `json:"soak,omitempty"`
	// ProgressDeadline: a cluster that is not healthy so long after its start has failed. Default 10m.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="at least 10s"
	// +optional
	ProgressDeadline *Duration `json:"progressDeadline,omitempty"`
}

// Stage of a strategy.
// +kubebuilder:validation:XValidation:rule="self.name != 'rest' || !(has(self.names) || has(self.matchLabels) || has(self.matchExpressions) || has(self.size))",message="'rest' is the stage for what no other takes; it has no selector"
type Stage struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name            string `json:"name"`
	ClusterSelector `json:",inline"`
	// Size takes only so many of the members that the selector leaves: a number, or a percent of all targets, rounded up.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",message="a number of at least 1, or 1% to 100%"
	// +optional
	Size   *intstr.IntOrString `json:"size,omitempty"`
	Pacing `json:",inline"`
}

// Delivery of the objects to one cluster.
type Delivery struct {
	// ServiceAccountName in the rollout's namespace, impersonated for every write. There is no way round it. Default "flotilla".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Interval between checks for drift, besides watching.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="at least 10s; changes to what was applied are seen by watching"
	// +optional
	Interval *Duration `json:"interval,omitempty"`
	// RetryInterval after a failed attempt; doubles with each, to at most 10m.
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="at least 1s"
	// +optional
	RetryInterval *Duration `json:"retryInterval,omitempty"`
	// Retries after the first failed attempt; then the cluster gives the release up and goes back to its last good one.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=3
	// +optional
	Retries *int32 `json:"retries,omitempty"`
	// Prune what a newer release no longer has.
	// +kubebuilder:default=true
	// +optional
	Prune *bool `json:"prune,omitempty"`
	// PruneGuard: a release that would prune more than both numbers is not started. Namespaces,
	// CustomResourceDefinitions and PersistentVolumes are never pruned; they are left and named.
	// +optional
	PruneGuard *PruneGuard `json:"pruneGuard,omitempty"`
}

// PruneGuard bounds what one release may prune in one cluster.
type PruneGuard struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=10
	// +optional
	MaxObjects *int32 `json:"maxObjects,omitempty"`
	// MaxPercent of the objects that the rollout has in the cluster.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=50
	// +optional
	MaxPercent *int32 `json:"maxPercent,omitempty"`
}

// FleetRolloutStatus is this member's knowledge: the fleet in counts, itself in detail. No field grows with the fleet.
type FleetRolloutStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Origin of the spec: the fleet repository, or the member that it was written on.
	// +optional
	Origin *Origin `json:"origin,omitempty"`
	// Summary is what the columns print.
	// +optional
	Summary *Summary `json:"summary,omitempty"`
	// Release that goes through the fleet, or went through it last.
	// +optional
	Release *Release `json:"release,omitempty"`
	// Stages in order, in counts.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=33
	// +optional
	Stages []StageStatus `json:"stages,omitempty"`
	// Here: this member.
	// +optional
	Here *MemberRollout `json:"here,omitempty"`
}

// Origin of a rollout: its home.
type Origin struct {
	// +kubebuilder:validation:Enum=Repository;Member
	Type string `json:"type"`
	// Name of the member, or the repository's URL.
	Name string `json:"name"`
	// +optional
	Revision string `json:"revision,omitempty"`
}

// Summary is a rollout in one line.
type Summary struct {
	// Stage such as 2/5.
	// +optional
	Stage string `json:"stage,omitempty"`
	// Clusters such as 37/120: succeeded of planned.
	// +optional
	Clusters string `json:"clusters,omitempty"`
	Failed   int32  `json:"failed"`
	// Revision in short, such as main@a1b2c3d.
	// +optional
	Revision string `json:"revision,omitempty"`
}

// Release is a sealed rollout with a revision of its payload.
type Release struct {
	// Revision such as main@sha1:<commit>.
	Revision string `json:"revision"`
	// Plan: digest of seal and revision.
	// +optional
	Plan string `json:"plan,omitempty"`
	// Seal: digest of the spec and the members it was fixed for; Number orders the seals of one author.
	// +optional
	Seal string `json:"seal,omitempty"`
	// +optional
	Number int64 `json:"number,omitempty"`
}

// StageStatus is one stage in counts.
type StageStatus struct {
	Name string `json:"name"`
	// +kubebuilder:validation:Enum=Pending;Waiting;Progressing;Soaking;Complete;Failed
	Phase     string `json:"phase"`
	Clusters  int32  `json:"clusters"`
	Succeeded int32  `json:"succeeded"`
	// +optional
	Progressing int32 `json:"progressing,omitempty"`
	// +optional
	Failed int32 `json:"failed,omitempty"`
	// +optional
	Degraded int32 `json:"degraded,omitempty"`
	// +optional
	Ineligible int32 `json:"ineligible,omitempty"`
	// Because: the decision's sentence, while it waits or has failed.
	// +optional
	Because string `json:"because,omitempty"`
	// Names of at most 5 clusters that it waits for or that failed.
	// +kubebuilder:validation:MaxItems=5
	// +listType=atomic
	// +optional
	Names []string `json:"names,omitempty"`
}

// MemberRollout is the rollout on this member.
type MemberRollout struct {
	// +kubebuilder:validation:Enum=NotTargeted;Pending;Waiting;Applying;Checking;Succeeded;Failed;Ineligible
	Phase string `json:"phase"`
	// +optional
	Stage string `json:"stage,omitempty"`
	// Rank in the stage; 0 is the first that may start.
	// +optional
	Rank *int32 `json:"rank,omitempty"`
	// AppliedRevision runs here and is kept healed.
	// +optional
	AppliedRevision string `json:"appliedRevision,omitempty"`
	// Because: the decision's sentence.
	// +optional
	Because string `json:"because,omitempty"`
	// Attempts at the release so far.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// Objects that the rollout has here.
	// +optional
	Objects int32 `json:"objects,omitempty"`
}
