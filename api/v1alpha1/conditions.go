// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready speaks of the fleet, Available of this member; Reconciling, Stalled, Paused
// and Degraded are there only while they are true (kstatus).
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
	ConditionSourceReady = "SourceReady"
	ConditionSealed      = "Sealed"
	ConditionApplied     = "Applied"
	ConditionAvailable   = "Available"
	ConditionPaused      = "Paused"
	ConditionDegraded    = "Degraded"
)

// Reasons, by the condition that they explain.
const (
	// Ready.
	ReasonRolloutComplete               = "RolloutComplete"               // every target succeeded
	ReasonRolloutCompleteWithExceptions = "RolloutCompleteWithExceptions" // all that were left; the message counts the others
	ReasonProgressing                   = "Progressing"                   // a stage is under way
	ReasonWaitingForStage               = "WaitingForStage"               // an earlier stage has not soaked
	ReasonSoaking                       = "Soaking"                       // successes are there, their soak is not over
	ReasonPaused                        = "Paused"                        // a stop is in force
	ReasonSuspended                     = "Suspended"                     // spec.suspend
	ReasonHalted                        = "Halted"                        // a failure that maxUnavailable does not cover
	ReasonInvalid                       = "Invalid"                       // the spec cannot be compiled
	ReasonNotHeard                      = "NotHeard"                      // this member hears nobody

	// SourceReady.
	ReasonFetched            = "Fetched"            // the newest revision is here
	ReasonFetchFailed        = "FetchFailed"        // the server did not answer as it should; tried again
	ReasonAuthFailed         = "AuthFailed"         // the server wants other credentials
	ReasonCredentialsMissing = "CredentialsMissing" // the Secret is not there, may not be read, or lacks a key
	ReasonServerNotTrusted   = "ServerNotTrusted"   // its certificate or host key is not the one expected
	ReasonRedirected         = "Redirected"         // the server sends elsewhere, where credentials do not follow
	ReasonVersionMoved       = "VersionMoved"       // a tag or version is not what it was when it was accepted
	ReasonNotDescending      = "NotDescending"      // the head does not descend from the accepted revision
	ReasonRefNotFound        = "RefNotFound"        // no such branch, tag, version or commit
	ReasonEmptySource        = "EmptySource"        // the repository has no commit
	ReasonPathNotFound       = "PathNotFound"       // no such folder in the source
	ReasonPathVariable       = "PathVariable"       // a path names a variable this member has not
	ReasonEmptyRender        = "EmptyRender"        // no object came out; nothing is deleted (R12)
	ReasonTooLarge           = "TooLarge"           // over a bound of bytes, files or objects

	// Sealed.
	ReasonSealedByCommit = "SealedByCommit" // the fleet repository
	ReasonSealedByAuthor = "SealedByAuthor" // the member it was written on
	ReasonNoTargets      = "NoTargets"      // no member matches
	ReasonForeignAuthor  = "ForeignAuthor"  // two homes claim one name

	// Applied.
	ReasonApplied                = "Applied"                // all objects are as the release has them
	ReasonWaitingForWave         = "WaitingForWave"         // objects of a lower wave, such as a hook's Job, are not ready
	ReasonWaiting                = "Waiting"                // not this member's turn
	ReasonRenderFailed           = "RenderFailed"           // the payload does not build
	ReasonValuesInvalid          = "ValuesInvalid"          // a chart does not take the values
	ReasonVariableUnknown        = "VariableUnknown"        // ${...} that nobody gives a value
	ReasonInputMissing           = "InputMissing"           // a ConfigMap, Secret or values file that the render needs is not there
	ReasonNotReproducible        = "NotReproducible"        // the payload renders to other bytes each time
	ReasonApplyFailed            = "ApplyFailed"            // the API server refused an object
	ReasonForbidden              = "Forbidden"              // the service account may not
	ReasonServiceAccountNotFound = "ServiceAccountNotFound" // spec.delivery.serviceAccountName is not there
	ReasonNamespaceMissing       = "NamespaceMissing"       // the payload needs a namespace it does not bring
	ReasonPruneGuard             = "PruneGuard"             // the release would prune too much
	ReasonImmutableField         = "ImmutableField"         // a field cannot be changed in place
	ReasonConflict               = "Conflict"               // an object belongs to another rollout
	ReasonInvalidManifest        = "InvalidManifest"        // not a Kubernetes object, or one the server refuses
	ReasonContainsFlotilla       = "ContainsFlotilla"       // a payload may not carry fleet.flotilla.dev kinds
	ReasonUnknownKind            = "UnknownKind"            // the API server does not know the kind

	// Available.
	ReasonHealthy                  = "Healthy"                  // all objects, for minReadyTime
	ReasonChecking                 = "Checking"                 // waiting for health
	ReasonProgressDeadlineExceeded = "ProgressDeadlineExceeded" // not healthy in time
	ReasonFailed                   = "Failed"                   // something says that it will not get healthy
	ReasonDegraded                 = "Degraded"                 // unhealthy after success
	ReasonGaveUp                   = "GaveUp"                   // no attempt is left
	ReasonNotTargeted              = "NotTargeted"              // the rollout is not for this member
	ReasonIneligible               = "Ineligible"               // this member left the plan

	// Stalled.
	ReasonForked    = "Forked"    // a member's key signed two things in one position; what it says counts for nothing
	ReasonDuplicate = "Duplicate" // another live agent uses this member's key
	ReasonRestored  = "Restored"  // this member has said more than its cluster's API knows of

	// FleetMember Ready.
	ReasonHeard = "Heard" // a beat or a heartbeat arrived lately
	ReasonLost  = "Lost"  // members next to it do not hear it any more

	// Paused.
	ReasonAnnotation = "Annotation" // fleet.flotilla.dev/pause
)

// Labels and annotations.
const (
	// LabelOrigin is on every copy; "local" or absent where the object is its own home.
	LabelOrigin = "fleet.flotilla.dev/origin"
	// LabelRolloutName and LabelRolloutNamespace are on every delivered object: whose it is.
	LabelRolloutName      = "fleet.flotilla.dev/rollout-name"
	LabelRolloutNamespace = "fleet.flotilla.dev/rollout-namespace"
	// AnnotationHome is on every copy: where the spec is written, in words.
	AnnotationHome = "fleet.flotilla.dev/home"
	// AnnotationSeal is on every copy: the seal that it shows.
	AnnotationSeal = "fleet.flotilla.dev/seal"
	// AnnotationPause on a FleetRollout of any member is a stop; its value says why (R7).
	AnnotationPause = "fleet.flotilla.dev/pause"
	// AnnotationReconcile asks to look now.
	AnnotationReconcile = "reconcile.fleet.flotilla.dev/requestedAt"
)

// Values of LabelOrigin.
const (
	OriginLocal      = "local"
	OriginRepository = "repository"
	OriginMember     = "member"
)
