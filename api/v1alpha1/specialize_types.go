// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import "k8s.io/apimachinery/pkg/runtime"

// Specialize makes each member's own variant of the payload. The engine is found from the files: a
// Chart.yaml is rendered by Helm, a kustomization.yaml built by kustomize, and anything else taken as it is.
// What follows then is done to the objects of every engine, in the order of the fields here.
type Specialize struct {
	// Helm is for charts.
	// +optional
	Helm *HelmRender `json:"helm,omitempty"`
	// Variables of the member, beside CLUSTER, ZONE and LABEL_<key>. They may be used in source.path, in
	// helm.valuesFiles, in helm.values and by postBuild.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Variables []Variable `json:"variables,omitempty"`
	// Components are folders with kustomize Components, relative to the payload's folder; they may hold variables.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +listType=atomic
	// +optional
	Components []string `json:"components,omitempty"`
	// Patches to objects, strategic merge or JSON 6902.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Patches []Patch `json:"patches,omitempty"`
	// Images to change by name.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Images []Image `json:"images,omitempty"`
	// CommonMetadata is added to every object.
	// +optional
	CommonMetadata *CommonMetadata `json:"commonMetadata,omitempty"`
	// TargetNamespace of every object that lives in one.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +optional
	TargetNamespace string `json:"targetNamespace,omitempty"`
	// NamePrefix of every object's name.
	// +kubebuilder:validation:MaxLength=200
	// +optional
	NamePrefix string `json:"namePrefix,omitempty"`
	// NameSuffix of every object's name.
	// +kubebuilder:validation:MaxLength=200
	// +optional
	NameSuffix string `json:"nameSuffix,omitempty"`
	// PostBuild replaces ${variable} in the built objects; left out, such text is left as it is.
	// +optional
	PostBuild *PostBuild `json:"postBuild,omitempty"`
	// Overrides for some of the members. All that match are done, in their order.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Overrides []Override `json:"overrides,omitempty"`
}

// HelmRender renders a chart. Hooks, tests and notes of a chart are described at Hooks.
type HelmRender struct {
	// Chart from a repository, where the payload holds values and no chart.
	// +optional
	Chart *HelmChart `json:"chart,omitempty"`
	// ReleaseName in templates, {{ .Release.Name }}. Default: the rollout's name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=53
	// +optional
	ReleaseName string `json:"releaseName,omitempty"`
	// ValuesFiles of the payload, relative to its folder; a later one wins. They may hold variables: regions/${LABEL_region}.yaml.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +listType=atomic
	// +optional
	ValuesFiles []string `json:"valuesFiles,omitempty"`
	// IgnoreMissingValuesFiles goes on without those that are not there.
	// +optional
	IgnoreMissingValuesFiles bool `json:"ignoreMissingValuesFiles,omitempty"`
	// ValuesFrom ConfigMaps and Secrets of the rollout's namespace on each member; over the files, a later one wins.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	ValuesFrom []ValuesReference `json:"valuesFrom,omitempty"`
	// Values over all the others. Text in them may hold variables; $${ is a plain ${.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	// +optional
	Values *runtime.RawExtension `json:"values,omitempty"`
	// CRDs of the chart's crds folder: CreateReplace delivers and updates them, Skip leaves them out.
	// +kubebuilder:validation:Enum=Skip;CreateReplace
	// +kubebuilder:default=CreateReplace
	// +optional
	CRDs string `json:"crds,omitempty"`
	// Hooks of the chart. Order delivers those of install and upgrade before (pre-) or after (post-) everything
	// else, by their weights, each when the one before is ready; those of delete, rollback and test are left out.
	// Refuse renders no chart that has any; Ignore leaves all of them out.
	// +kubebuilder:validation:Enum=Order;Refuse;Ignore
	// +kubebuilder:default=Order
	// +optional
	Hooks string `json:"hooks,omitempty"`
}

// What HelmRender.CRDs and HelmRender.Hooks may be.
const (
	CRDsSkip          = "Skip"
	CRDsCreateReplace = "CreateReplace"

	HooksOrder  = "Order"
	HooksRefuse = "Refuse"
	HooksIgnore = "Ignore"
)

// HelmChart is one version of a chart in a repository.
type HelmChart struct {
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
	// Version in full: the payload's commit has to give the same release always.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^v?[0-9]+[.][0-9]+[.][0-9]+([-+][0-9A-Za-z.+-]+)?$')",message="an exact version such as 1.4.2, so that one commit always gives the same release (ranges belong in spec.source.helm)"
	// +required
	Version string `json:"version"`
	// Digest of the chart's archive (of its layer in a registry). Another one is refused.
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	// +optional
	Digest string `json:"digest,omitempty"`
	// SecretRef names the Secret that opens the repository; its keys are those of spec.source.secretRef.
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`
}

// ValuesReference is one key of a ConfigMap or Secret.
// +kubebuilder:validation:XValidation:rule="!has(self.targetPath) || self.targetPath.size() > 0",message="a path such as image.tag, or leave it out"
type ValuesReference struct {
	// +kubebuilder:validation:Enum=ConfigMap;Secret
	// +required
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
	// Key that holds the values, as YAML. Default values.yaml.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ValuesKey string `json:"valuesKey,omitempty"`
	// TargetPath puts the text of the key at one path of the values, as helm --set does: image.tag.
	// +kubebuilder:validation:MaxLength=250
	// +optional
	TargetPath string `json:"targetPath,omitempty"`
	// Optional: an object or key that is not there is passed over.
	// +optional
	Optional bool `json:"optional,omitempty"`
}

// DefaultValuesKey of a ValuesReference.
const DefaultValuesKey = "values.yaml"

// Variable is a value that each member finds by itself.
type Variable struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name"`
	// Expression in CEL, over cluster.name, cluster.zone and cluster.labels of the FleetMember. Its result is text, a number or a bool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +required
	Expression string `json:"expression"`
}

// Patch changes objects.
type Patch struct {
	// Patch is strategic merge, or a list of JSON 6902 operations.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	// +required
	Patch string `json:"patch"`
	// Target of the patch; left out, the object that a strategic merge patch names.
	// +optional
	Target *PatchTarget `json:"target,omitempty"`
}

// PatchTarget selects objects: each field that is given must hold. Names are regular expressions, anchored.
type PatchTarget struct {
	// +optional
	Group string `json:"group,omitempty"`
	// +optional
	Version string `json:"version,omitempty"`
	// +optional
	Kind string `json:"kind,omitempty"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// +optional
	Name string `json:"name,omitempty"`
	// LabelSelector as kubectl writes it: app=web,tier!=cache.
	// +optional
	LabelSelector string `json:"labelSelector,omitempty"`
	// +optional
	AnnotationSelector string `json:"annotationSelector,omitempty"`
}

// Image changes an image wherever it is used.
type Image struct {
	// Name of the image as it is now, without tag.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +required
	Name string `json:"name"`
	// +optional
	NewName string `json:"newName,omitempty"`
	// +optional
	NewTag string `json:"newTag,omitempty"`
	// Digest instead of a tag.
	// +optional
	Digest string `json:"digest,omitempty"`
}

// CommonMetadata of every object.
type CommonMetadata struct {
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// PostBuild replaces ${variable} in the built objects. It is strict: a variable that nobody gives fails the
// render. Defaults and text functions are those of the shell: ${tier:=web}, ${tag/v/}. $${ is a plain ${.
// An object with the annotation fleet.flotilla.dev/substitute: disabled is left as it is.
type PostBuild struct {
	// Substitute these variables, over those of SubstituteFrom.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	Substitute map[string]string `json:"substitute,omitempty"`
	// SubstituteFrom takes every key of ConfigMaps and Secrets of the rollout's namespace on each member; a later one wins.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	SubstituteFrom []SubstituteReference `json:"substituteFrom,omitempty"`
}

// AnnotationSubstitute on an object of a payload, with the value "disabled", keeps PostBuild from it.
const AnnotationSubstitute = "fleet.flotilla.dev/substitute"

// Annotations on an object of a payload that say how it is delivered.
const (
	// AnnotationWave is a whole number from -MaxWave to MaxWave; where it is not given, 0. An object is applied when
	// everything of all lower waves is ready; a Job is ready when it is complete.
	AnnotationWave = "fleet.flotilla.dev/wave"
	// AnnotationForce, with the value "enabled", has an object deleted and made again where it differs in a field that
	// cannot be changed in place. A Job that has it and differs runs again.
	AnnotationForce = "fleet.flotilla.dev/force"
)

// MaxWave is the highest wave, and with a minus the lowest.
const MaxWave = 1000

// What AnnotationForce may be.
const (
	ForceEnabled  = "enabled"
	ForceDisabled = "disabled"
)

// SubstituteReference is a ConfigMap or Secret of variables.
type SubstituteReference struct {
	// +kubebuilder:validation:Enum=ConfigMap;Secret
	// +required
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
	// Optional: an object that is not there is passed over.
	// +optional
	Optional bool `json:"optional,omitempty"`
}

// Override is for the members that it selects.
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.matchLabels) || has(self.matchExpressions)",message="say for which members: matchLabels, matchExpressions or names"
type Override struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name            string `json:"name"`
	ClusterSelector `json:",inline"`
	// Patches after those of everyone.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Patches []Patch `json:"patches,omitempty"`
	// Images over those of everyone.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Images []Image `json:"images,omitempty"`
	// Values of helm over those of everyone.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	// +optional
	Values *runtime.RawExtension `json:"values,omitempty"`
	// Substitute over postBuild's.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	Substitute map[string]string `json:"substitute,omitempty"`
}
